"""Who trains a run: a lease in the run's folder, so that a run never has two writers.

A lease names its owner and is kept fresh by it. It can be taken from an owner that is dead: a
process that no longer lives, an earlier start or attempt of the same Slurm job, or one that has not
freshened its lease for ``STALE_SECONDS``. Whoever held it notices before the next write, because
the token in the file is no longer its own.
"""

import contextlib
import json
import os
import socket
import threading
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kdbench.files import write_atomically

STALE_SECONDS = float(os.environ.get("KDBENCH_STALE_SECONDS", "120"))
"""A lease that was not freshened for so long has no owner any more."""
NAME = "lease.json"


@dataclass(frozen=True)
class Owner:
    """A process that trains.

    Attributes:
        host: its name. place: boot and pid namespace, in which ``pid`` means something.
        pid, started: the process, and when it began in clock ticks, since pids are used again.
        job: Slurm's id of the job, ``123_4`` for an element of an array; "" outside of Slurm.
        restart: how often Slurm has started this job before.
        attempt: how often the runner has submitted the run before.
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
        """This process, in its Slurm job if it is in one."""
        array, index = (os.environ.get(f"SLURM_ARRAY_{key}_ID") for key in ("JOB", "TASK"))
        job = f"{array}_{index}" if array else os.environ.get("SLURM_JOB_ID", "")
        restart = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        pid = os.getpid()
        return cls(socket.gethostname(), _place(), pid, _started(pid), job, restart, attempt)

    def is_dead(self) -> bool:
        """Whether the process is known to live no longer; False where that cannot be seen."""
        if (self.host, self.place) != (socket.gethostname(), _place()):
            return False
        return _started(self.pid) != self.started

    def yields_to(self, other: "Owner") -> bool:
        """Whether ``other`` was started because this owner had been lost."""
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
    """When a process began; "" where it lives no longer."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


@dataclass(frozen=True)
class Lease:
    """A run in hand."""

    path: Path
    token: str

    def held(self) -> bool:
        """Whether nobody has taken it away; asked before every write that counts."""
        return _read(self.path).get("token") == self.token

    def release(self) -> None:
        """Give the run back."""
        _forget(self)
        with contextlib.suppress(Timeout, OSError), _guard(self.path.parent):
            if self.held():
                self.path.unlink(missing_ok=True)


def acquire(folder: Path, owner: Owner) -> Lease | None:
    """Take the run in ``folder``; None where somebody trains it.

    Raises:
        OSError: the folder cannot be written.
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
    """Whether somebody holds the run in ``folder``, as far as can be seen from here."""
    path = folder / NAME
    owner = _owner(_read(path))
    return owner is not None and not owner.is_dead() and _age(path) < STALE_SECONDS


def _free(path: Path, mine: Owner) -> bool:
    theirs = _owner(_read(path))
    if theirs is None or theirs.is_dead() or theirs.yields_to(mine):
        return True
    return _age(path) >= STALE_SECONDS


def _guard(folder: Path) -> FileLock:
    """For the moment of reading and writing a lease."""
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
    """Seconds since a lease was freshened, by the clock of its file system.

    The clocks of two machines may differ by more than a lease is fresh.
    """
    clock = path.with_name("lock")
    try:
        clock.touch()
        return clock.stat().st_mtime - path.stat().st_mtime
    except OSError:
        return 0.0


# --- keeping leases fresh ---

_mine: set[Lease] = set()
_changed = threading.Lock()
_keeper: list[threading.Thread] = []


def _keep(lease: Lease) -> None:
    with _changed:
        _mine.add(lease)
        if not _keeper or not _keeper[0].is_alive():
            _keeper[:] = [threading.Thread(target=_freshen, name="leases", daemon=True)]
            _keeper[0].start()


def _forget(lease: Lease) -> None:
    with _changed:
        _mine.discard(lease)


def _freshen() -> None:
    """Freshen this process's leases until it holds none.

    In a thread, because a step, an evaluation or a download may take longer than a lease lives.
    """
    pause = threading.Event()
    while True:
        pause.wait(STALE_SECONDS / 10)
        with _changed:
            leases = list(_mine)
            if not leases:
                _keeper.clear()
                return
        touch(leases)


def touch(leases: Iterable[Lease]) -> None:
    """Freshen leases that are still held."""
    for lease in leases:
        with contextlib.suppress(OSError):
            if lease.held():
                os.utime(lease.path)
