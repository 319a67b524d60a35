"""How this machine is used best, measured once by ``kdbench doctor --tune``, kept between runs.

One JSON file holds what was measured on each machine that shares it: the one that the environment
variable KDBENCH_MACHINE names, else ``kdbench/machine.json`` in the user's cache. No torch here.
"""

import json
import os
import socket
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from kdbench.files import write_atomically
from kdbench.grid.settings import Positive, Rate, Strict
from kdbench.runs import environment
from kdbench.runs.environment import cores

MARGIN = 1.03
"""How many times faster than the usual another way has to be to be worth it."""


class MeasuredSplit(Strict):
    """A way to use cores: ``workers`` processes of ``threads`` threads, steps per second of all."""

    workers: Positive
    threads: Positive
    steps_per_s: Rate

    def __str__(self) -> str:
        return f"{{workers: {self.workers}, threads: {self.threads}}}"


class Tuning(Strict):
    """What was measured on a machine.

    Attributes:
        subject: what was trained, for people.
        ways: of those measured, in fp32.
        bf16: steps per second under autocast / in fp32, in one process.
    """

    subject: str
    ways: tuple[MeasuredSplit, ...] = Field(min_length=1)
    bf16: Rate

    def best(self, threads: int | None = None) -> MeasuredSplit | None:
        """The fastest way; of those that come close to it the one of fewest threads, most workers.

        Args:
            threads: look only at workers of so many threads.

        Returns:
            None: no such way was measured.
        """
        ways = [way for way in self.ways if threads in (None, way.threads)]
        if not ways:
            return None
        enough = max(way.steps_per_s for way in ways) / MARGIN
        near = [way for way in ways if way.steps_per_s >= enough]
        return min(near, key=lambda way: (way.threads, -way.workers))


def path() -> Path:
    """Where tunings lie."""
    if told := os.environ.get("KDBENCH_MACHINE"):
        return Path(told)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "kdbench" / "machine.json"


def name() -> str:
    """What a tuning holds for: host, processor, usable cores, torch."""
    torch = environment.versions().get("torch", "?")
    parts = socket.gethostname(), environment.processor(), f"{cores()} cores", f"torch {torch}"
    return ", ".join(parts)


def load() -> Tuning | None:
    """What was measured here; None where nothing was, or where it cannot be read."""
    try:
        return Tuning.model_validate(_all().get(name()))
    except ValidationError:
        return None


def save(tuning: Tuning) -> Path:
    """Keep a tuning; where it now lies.

    Raises:
        OSError: it cannot be written.
    """
    file = path()
    file.parent.mkdir(parents=True, exist_ok=True)
    known = _all() | {name(): tuning.model_dump(mode="json")}
    write_atomically(file, json.dumps(known, indent=1) + "\n")
    return file


def _all() -> dict[str, Any]:
    """Machine -> its tuning, as JSON values."""
    try:
        found = json.loads(path().read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
