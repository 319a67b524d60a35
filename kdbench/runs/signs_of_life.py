"""How long the owner of a lease has been silent, measured without trusting clocks.

The owner of a lease renews its time stamp. A stamp alone proves nothing: the clocks of two machines
may differ by days, a clock may be set, and some file systems stamp files by the clock of the
machine that writes. So a lease is stale only after this process has seen no renewal for a while, by
its own monotonic clock, which nobody can set and which stops while the machine is suspended.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from kdbench.wording import duration

STALE_SECONDS = float(os.environ.get("KDBENCH_STALE_SECONDS", "120"))
"""A lease that was not renewed for this long can be taken."""
CONFIRM = 0.25
"""Share of ``STALE_SECONDS`` for which to watch a lease whose stamp is older than that.

It is longer than two renewals take.
"""
CREDIBLE_SECONDS = 5.0
"""A stamp that is further in the future is that of a wrong clock."""


@dataclass(frozen=True)
class Sign:
    """The last renewal of a lease.

    Attributes:
        age: seconds since then, by the clock of the file system; negative: in the future.
        watched: seconds for which this process has seen no other renewal.
    """

    age: float
    watched: float

    @property
    def is_stale(self) -> bool:
        """Whether the lease can be taken."""
        old = self.age >= STALE_SECONDS and self.watched >= CONFIRM * STALE_SECONDS
        return old or self.watched >= STALE_SECONDS

    @property
    def looks_stale(self) -> bool:
        """Whether the lease can be taken, if the clocks are right."""
        return self.age >= STALE_SECONDS or self.watched >= STALE_SECONDS

    def __str__(self) -> str:
        """Describe the age, e.g. ``3.1 s ago``."""
        if self.age < -CREDIBLE_SECONDS:
            return f"dated {duration(-self.age)} in the future by a wrong clock"
        return f"{duration(max(0.0, self.age))} ago"


_seen: dict[Path, tuple[tuple[int, int], float]] = {}
"""By path of a lease, what this process last saw of it, and since when."""


def last(path: Path) -> Sign | None:
    """Return the last renewal of a lease, and watch for the next; None if there is no lease."""
    try:
        status = path.stat()
    except OSError:
        return None
    state = status.st_mtime_ns, status.st_ino
    now = time.monotonic()
    if path not in _seen or _seen[path][0] != state:
        _seen[path] = state, now
    return Sign(_clock(path) - status.st_mtime, now - _seen[path][1])


def forget(path: Path) -> None:
    """Stop watching a lease."""
    _seen.pop(path, None)


def _clock(path: Path) -> float:
    """Return the time by the clock that stamps the files beside ``path``."""
    clock = path.with_name("lock")
    try:
        clock.touch()
        return clock.stat().st_mtime
    except OSError:  # a reader that may not write there
        return time.time()
