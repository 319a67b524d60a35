"""Processes, identified by number and start time, so that a reused number is never confused."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from kdbench.files import write_atomically

PROC = Path("/proc")
DEADLINE = 180.0
"""Seconds to wait for what must happen; a wait ends early, and a slow machine is no failure."""


def until(
    what: str, condition: Callable[[], object], seconds: float = DEADLINE, pause: float = 0.1
) -> None:
    """Wait for a condition.

    Raises:
        TimeoutError: the condition did not hold within ``seconds``.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(pause)


@dataclass(frozen=True)
class Process:
    """A process; ``started`` is in clock ticks since the machine booted (proc(5), field 22)."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> "Process | None":
        """Return the process that has this number now, unless it is a zombie."""
        try:
            fields = (PROC / str(pid) / "stat").read_text("utf-8", "replace")
        except OSError:
            return None
        state, *rest = fields.rpartition(")")[2].split()
        return None if state in "ZX" else cls(pid, int(rest[18]))

    @classmethod
    def read(cls, file: Path) -> "Process | None":
        """Return the process recorded by ``write`` if it still runs."""
        try:
            pid, started = map(int, file.read_text("utf-8").split())
        except (OSError, ValueError):
            return None
        process = cls(pid, started)
        return process if process.alive() else None

    def write(self, file: Path) -> None:
        """Record the process in a file, atomically: a partial file would read as a dead process."""
        write_atomically(file, f"{self.pid} {self.started}\n")

    def alive(self) -> bool:
        """Check whether the process still runs."""
        return Process.of(self.pid) == self

    def send(self, number: signal.Signals) -> None:
        """Send a signal if the process still runs."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def end(self, seconds: float = 0.0) -> None:
        """End the process by TERM, or by KILL after ``seconds``, and wait for its end."""
        if seconds:
            self.send(signal.SIGTERM)
            self.send(signal.SIGCONT)
            with contextlib.suppress(TimeoutError):
                until(f"the end of process {self.pid}", lambda: not self.alive(), seconds, 0.02)
        self.send(signal.SIGKILL)
        until(f"the end of process {self.pid}", lambda: not self.alive(), pause=0.02)


def carrying(every: Iterable[str], some: Iterable[str]) -> list[Process]:
    """Return processes whose initial environment has all of ``every`` and one of ``some``.

    Entries are "NAME", for any value, or "NAME=value". The calling process is left out.
    """
    needed, enough = set(every), set(some)
    processes = []
    for folder in PROC.iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        process = Process.of(int(folder.name))
        with contextlib.suppress(OSError):
            entries = (folder / "environ").read_bytes().decode("utf-8", "replace").split("\0")
            has = {*entries, *(entry.partition("=")[0] for entry in entries)}
            if process and needed <= has and enough & has:
                processes.append(process)
    return processes
