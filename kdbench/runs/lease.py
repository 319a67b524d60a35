"""Leases: a file in the folder of a run names the only process that may write the run.

The owner refreshes its lease. Another process may take a lease whose owner is dead: the owner's
process has ended, it belongs to an earlier start or attempt of the same Slurm job, or it has not
refreshed its lease for ``STALE_SECONDS``. The previous owner notices before its next write, because
the file holds another token.
"""

import contextlib
import json
import os
import socket
import threading
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kdbench.files import write_atomically

STALE_SECONDS = float(os.environ.get("KDBENCH_STALE_SECONDS", "120"))
"""A lease that was not refreshed for this long can be taken."""
NAME = "lease.json"


class LeaseLost(Exception):
    """Another process has taken the lease, or has ended the run: this one must not write it."""


@dataclass(frozen=True)
class Owner:
    """A process that trains runs.

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
        pid = os.getpid()
        return cls(socket.gethostname(), _place(), pid, _started(pid), job, restart, attempt)

    def is_dead(self) -> bool:
        """Check whether the process has ended; False if this machine cannot tell."""
        if (self.host, self.place) != (socket.gethostname(), _place()):
            return False
        return _started(self.pid) != self.started

    def yields_to(self, other: "Owner") -> bool:
        """Check whether ``other`` was started to replace this owner."""
        if self.job and self.job == other.job:
            return self.restart < other.restart
        return bool(self.job and other.job) and self.attempt < other.attempt


@cache
def _place() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Return the start time of a process; "" if it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


@dataclass(frozen=True)
class Lease:
    """A lease held by this process."""

    path: Path
    token: str

    def held(self) -> bool:
        """Check that no other process has taken the lease, before every write that matters."""
        return _read(self.path).get("token") == self.token

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Keep other processes from taking the lease while a file of the run is put in place.

        A process may have been stopped for any time since it last checked its lease. So the lease
        is checked again here, and nobody can take it inside this context. Write and sync before
        entering: a process that is stopped in here blocks the run.

        Raises:
            LeaseLost: another process has taken the lease.
            OSError: the lock cannot be taken.
        """
        with _guard(self.path.parent):
            if not self.held():
                raise LeaseLost(f"{self.path}: taken over by another process")
            yield

    def release(self) -> None:
        """Release the run."""
        _forget(self)
        with contextlib.suppress(Timeout, OSError), _guard(self.path.parent):
            if self.held():
                self.path.unlink(missing_ok=True)


def acquire(folder: Path, owner: Owner) -> Lease | None:
    """Acquire the lease of the run in ``folder``; None if another process trains the run.

    Raises:
        OSError: the folder is not writable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    try:
        with _guard(folder):
            if not _free(path, owner):
                return None
            lease = Lease(path, uuid.uuid4().hex)
            write_atomically(path, json.dumps(asdict(owner) | {"token": lease.token}) + "\n")
    except Timeout:
        return None
    _keep(lease)
    return lease


def fresh(folder: Path) -> bool:
    """Check whether a process holds the run in ``folder``, as far as this machine can tell."""
    path = folder / NAME
    owner = _owner(_read(path))
    return owner is not None and not owner.is_dead() and _age(path) < STALE_SECONDS


def _free(path: Path, mine: Owner) -> bool:
    theirs = _owner(_read(path))
    if theirs is None or theirs.is_dead() or theirs.yields_to(mine):
        return True
    return _age(path) >= STALE_SECONDS


def _guard(folder: Path) -> FileLock:
    """Return the lock to hold while a lease is read and written."""
    return FileLock(folder / "lock", timeout=10)


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _owner(values: dict[str, Any]) -> Owner | None:
    try:
        return Owner(**{key: value for key, value in values.items() if key != "token"})
    except TypeError:
        return None


def _age(path: Path) -> float:
    """Return the seconds since a lease was refreshed, by the clock of its file system.

    The clocks of two machines may differ by more than ``STALE_SECONDS``.
    """
    clock = path.with_name("lock")
    try:
        clock.touch()
        return clock.stat().st_mtime - path.stat().st_mtime
    except OSError:
        return 0.0


# --- refreshing leases ---

_mine: set[Lease] = set()
_changed = threading.Lock()
_refresher: list[threading.Thread] = []


def _keep(lease: Lease) -> None:
    with _changed:
        _mine.add(lease)
        if not _refresher or not _refresher[0].is_alive():
            _refresher[:] = [threading.Thread(target=_refresh, name="leases", daemon=True)]
            _refresher[0].start()


def _forget(lease: Lease) -> None:
    with _changed:
        _mine.discard(lease)


def _refresh() -> None:
    """Refresh the leases of this process until it holds none.

    This runs in a thread, because a step, an evaluation or a download may take longer than
    ``STALE_SECONDS``.
    """
    pause = threading.Event()
    while True:
        pause.wait(STALE_SECONDS / 10)
        with _changed:
            leases = list(_mine)
            if not leases:
                _refresher.clear()
                return
        touch(leases)


def touch(leases: Iterable[Lease]) -> None:
    """Refresh the leases that are still held."""
    for lease in leases:
        with contextlib.suppress(OSError):
            if lease.held():
                os.utime(lease.path)
