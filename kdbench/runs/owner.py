"""Identity of the processes that train runs, on any number of machines and in containers."""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Owner:
    """A process that trains runs.

    Processes in two containers may have equal host names and pids, and two machines may have equal
    host names, so processes are the same only if all of ``process`` is equal.

    Attributes:
        host: name of the machine.
        place: boot id and pid namespace, within which ``pid`` is unique.
        pid: process id.
        started: start time of the process in clock ticks, because pids are reused.
        job: Slurm's id of the job, ``123_4`` for an element of an array; "" outside Slurm.
        restart: number of earlier starts of this job by Slurm.
        attempt: number of earlier submissions of the run by the runner.
    """

    host: str
    place: str
    pid: int
    started: str
    job: str = ""
    restart: int = 0
    attempt: int = 0

    @classmethod
    def me(cls, attempt: int = 0) -> "Owner":
        """Describe this process and, inside Slurm, its job."""
        array, index = (os.environ.get(f"SLURM_ARRAY_{key}_ID") for key in ("JOB", "TASK"))
        job = f"{array}_{index}" if array else os.environ.get("SLURM_JOB_ID", "")
        restart = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        return replace(cls.of_child(os.getpid()), job=job, restart=restart, attempt=attempt)

    @classmethod
    def of_child(cls, pid: int) -> "Owner":
        """Describe a living child of this process, without its job."""
        started = _started(pid) if _sees_own_processes() else ""
        return cls(socket.gethostname(), _place(), pid, started)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> "Owner | None":
        """Return the owner with these attributes; None if they are not those of an owner."""
        try:
            owner = cls(**values)
        except TypeError:
            return None
        right = all(isinstance(getattr(owner, x.name), x.type) for x in fields(owner))  # type: ignore[arg-type]
        return owner if right else None

    @property
    def process(self) -> str:
        """Identity of the process; no other process has the same."""
        return f"{self.host} {self.place} {self.pid} {self.started}"

    def is_dead(self) -> bool:
        """Check whether the process has ended; False if this machine cannot tell."""
        if (self.host, self.place) != (socket.gethostname(), _place()):
            return False
        if not self.started or not _sees_own_processes():
            return False
        if _stat(self.pid) is None:
            return not _exists(self.pid)
        return _started(self.pid) != self.started

    def yields_to(self, other: "Owner") -> bool:
        """Check whether ``other`` was started to replace this owner."""
        if self.job and self.job == other.job:
            return self.restart < other.restart
        return bool(self.job and other.job) and self.attempt < other.attempt

    def __str__(self) -> str:
        """Name the process for people."""
        job = f", job {self.job}" if self.job else ""
        return f"{self.host} (pid {self.pid}{job})"


@cache
def _place() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


@cache
def _sees_own_processes() -> bool:
    """Check whether ``/proc`` shows the pids that this process and its siblings have.

    It does not in a pid namespace that has kept the ``/proc`` of another one.
    """
    with suppress(OSError):
        return str(Path("/proc/self").readlink()) == str(os.getpid())
    return False


def _started(pid: int | str) -> str:
    """Return the start time of a process; "" if it has ended, or if ``/proc`` does not show it."""
    state, started = _stat(pid) or ("X", "")
    return "" if state in "ZX" else started


def _stat(pid: int | str) -> tuple[str, str] | None:
    """Return the state and the start time of a process; None if ``/proc`` does not show it."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return fields[0], fields[19]


def _exists(pid: int) -> bool:
    """Check whether a process exists. ``/proc`` may hide those of other users (``hidepid``)."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # no process has a pid beyond a C integer
        return False
    except OSError:
        return True
    return True
