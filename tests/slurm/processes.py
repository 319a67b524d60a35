"""Processes by number and start time: a number used again is never taken for the old one."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from kdbench.files import write_atomically

PROC = Path("/proc")


def until(what: str, seconds: float, condition: Callable[[], object], pause: float = 0.1) -> None:
    """Wait for a condition.

    Raises:
        TimeoutError: it did not hold within ``seconds``.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(pause)


@dataclass(frozen=True)
class Process:
    """A process; ``started`` is in clock ticks since the machine started (proc(5), field 22)."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> "Process | None":
        """The process that has this number now, unless it is a zombie."""
        try:
            fields = (PROC / str(pid) / "stat").read_text("utf-8", "replace")
        except OSError:
            return None
        state, *rest = fields.rpartition(")")[2].split()
        return None if state in "ZX" else cls(pid, int(rest[18]))

    @classmethod
    def read(cls, file: Path) -> "Process | None":
        """The process that ``write`` recorded, if it still runs."""
        try:
            pid, started = map(int, file.read_text("utf-8").split())
        except (OSError, ValueError):
            return None
        found = cls(pid, started)
        return found if found.alive() else None

    def write(self, file: Path) -> None:
        """Record it in a file, whole or not at all: half a record would read as a dead process."""
        write_atomically(file, f"{self.pid} {self.started}\n")

    def alive(self) -> bool:
        """Whether it still runs."""
        return Process.of(self.pid) == self

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def end(self, seconds: float = 0.0) -> None:
        """TERM, then KILL what still runs after ``seconds``; return once it is gone."""
        if seconds:
            self.send(signal.SIGTERM)
            self.send(signal.SIGCONT)
            with contextlib.suppress(TimeoutError):
                until(f"the end of process {self.pid}", seconds, lambda: not self.alive(), 0.02)
        self.send(signal.SIGKILL)
        until(f"the end of process {self.pid}", 30, lambda: not self.alive(), 0.02)


def carrying(every: Iterable[str], some: Iterable[str]) -> list[Process]:
    """Processes whose environment has every one of these and at least one of those.

    "NAME" means any value, "NAME=value" that one. The environment is the one a process started
    with; the caller itself is left out.
    """
    needed, enough = set(every), set(some)
    found = []
    for folder in PROC.iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        process = Process.of(int(folder.name))
        with contextlib.suppress(OSError):
            entries = (folder / "environ").read_bytes().decode("utf-8", "replace").split("\0")
            has = {*entries, *(entry.partition("=")[0] for entry in entries)}
            if process and needed <= has and enough & has:
                found.append(process)
    return found
