"""Leases: a file in the folder of a run names the only process that may write the run.

The owner refreshes its lease. Another process may take a lease whose owner is dead: the owner's
process has ended, it belongs to an earlier start or attempt of the same Slurm job, or it has shown
no sign of life for ``STALE_SECONDS`` (``kdbench.runs.signs_of_life``). The previous owner notices
before its next write, because the file holds another token.
"""

import contextlib
import json
import os
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kdbench.files import write_atomically
from kdbench.runs import signs_of_life
from kdbench.runs.owner import Owner
from kdbench.runs.signs_of_life import Sign

NAME = "lease.json"
GUARD_SECONDS = 2.0
"""How long to wait for the lock of a run, which a process holds for milliseconds."""


class LeaseLost(Exception):
    """Another process has taken the lease, or has ended the run: this one must not write it."""


@dataclass(frozen=True)
class Lease:
    """A lease held by this process."""

    path: Path
    token: str

    def held(self) -> bool:
        """Check that no other process has taken the lease."""
        return _read(self.path).get("token") == self.token

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Keep other processes from taking the lease while a file of the run is put in place.

        A process may have been stopped for any time since it last checked its lease. So the lease
        is checked again here, and nobody takes it inside this context. Write and sync before
        entering.

        Raises:
            LeaseLost: another process has taken the lease.
            OSError: the lock cannot be taken.
        """
        with _guard_if_possible(self.path.parent):
            if not self.held():
                raise LeaseLost(f"{self.path}: taken over by another process")
            yield

    def release(self) -> None:
        """Release the run."""
        _forget(self)
        with contextlib.suppress(OSError), _guard_if_possible(self.path.parent):
            if self.held():
                self.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Holder:
    """The process that a lease names, and its last sign of life."""

    owner: Owner
    sign: Sign

    def is_lost(self) -> bool:
        """Check whether the process is dead or stale, as far as this machine can tell."""
        return self.owner.is_dead() or self.sign.looks_stale

    def __str__(self) -> str:
        """Name the process and the age of its last sign."""
        return f"{self.owner}, last sign {self.sign}"


def acquire(folder: Path, owner: Owner, *, ended: str = "") -> Lease | None:
    """Acquire the lease of the run in ``folder``; None if another process trains the run.

    A run whose holder is silent must be asked for repeatedly: silence is measured between calls.

    Args:
        folder: of the run.
        owner: this process.
        ended: identity of a process that has ended (``Owner.process``), as its parent knows also
            on systems where ``Owner.is_dead`` cannot tell.

    Raises:
        OSError: the folder is not writable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    # Most calls end here, without the lock, so a process that is stopped here blocks nobody.
    if not _free(path, owner, ended):
        return None
    try:
        with _guard(folder):
            if not _free(path, owner, ended):
                return None
            lease = Lease(path, uuid.uuid4().hex)
            write_atomically(path, json.dumps(asdict(owner) | {"token": lease.token}) + "\n")
    except Timeout:
        return None
    signs_of_life.forget(path)
    _keep(lease)
    return lease


def holder(folder: Path) -> Holder | None:
    """Return the process that holds the run in ``folder``, dead or alive; None: no process."""
    path = folder / NAME
    owner = _owner(_read(path))
    sign = signs_of_life.last(path) if owner else None
    return Holder(owner, sign) if owner and sign else None


def watch(folders: Iterable[Path]) -> None:
    """Look for signs of life of the holders of several leases at the same moment.

    Leases of a process that has stopped then become stale together.
    """
    for folder in folders:
        signs_of_life.last(folder / NAME)


def fresh(folder: Path) -> bool:
    """Check whether a process holds the run in ``folder``, as far as this machine can tell."""
    found = holder(folder)
    return found is not None and not found.is_lost()


def _free(path: Path, mine: Owner, ended: str) -> bool:
    theirs = _owner(_read(path))
    if theirs is None or theirs.process == ended or theirs.is_dead() or theirs.yields_to(mine):
        return True
    sign = signs_of_life.last(path)
    return sign is None or sign.is_stale


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _owner(values: dict[str, Any]) -> Owner | None:
    return Owner.parse({key: value for key, value in values.items() if key != "token"})


# --- the lock of a run, held while its lease is read and written ---

_refused: dict[Path, tuple[int, float]] = {}
"""By path of a lock, its inode, and when this process was first refused it."""


@contextlib.contextmanager
def _guard(folder: Path) -> Iterator[None]:
    """Hold the lock of a run.

    A process that was stopped with the lock would block the run forever, so a lock that was
    refused for ``STALE_SECONDS`` is replaced by another one. If the stopped process continues, it
    may overwrite a lease; the owner of that lease then stops.

    Raises:
        Timeout: another process holds the lock.
    """
    path = folder / "lock"
    lock = FileLock(path, timeout=GUARD_SECONDS)
    try:
        lock.acquire()
    except Timeout:
        _replace_if_stuck(path)
        raise
    _refused.pop(path, None)
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _guard_if_possible(folder: Path) -> Iterator[None]:
    """Hold the lock of a run unless another process does not release it."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(Timeout):
            held.enter_context(_guard(folder))
        yield


def _replace_if_stuck(path: Path) -> None:
    now = time.monotonic()
    with contextlib.suppress(OSError):
        inode = path.stat().st_ino
        known, since = _refused.setdefault(path, (inode, now))
        if known != inode:
            _refused[path] = inode, now
        elif now - since >= signs_of_life.STALE_SECONDS:
            path.unlink()
            del _refused[path]


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
        pause.wait(signs_of_life.STALE_SECONDS / 10)
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
