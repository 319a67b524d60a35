"""The fastest use of cores or GPU, measured once by ``kdbench doctor --tune`` and saved.

One JSON file holds the measurements of every machine that shares it, and of every GPU under a
separate key: the file in the environment variable KDBENCH_MACHINE, or ``kdbench/machine.json`` in
the user's cache. Imports no torch.
"""

import json
import os
import socket
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from kdbench.files import write_atomically
from kdbench.grid.value_types import Positive, Rate, Strict
from kdbench.runs import environment
from kdbench.runs.environment import cores

MARGIN = 1.03
"""Speed-up from which another use of the cores, or bf16, is worth a change."""


class MeasuredSplit(Strict):
    """A measured use of the cores: ``workers`` processes with ``threads`` threads each.

    Attributes:
        steps_per_s: training steps per second of all processes together.
    """

    workers: Positive
    threads: Positive
    steps_per_s: Rate

    def __str__(self) -> str:
        return f"{{workers: {self.workers}, threads: {self.threads}}}"


class Tuning(Strict):
    """Measurements of a machine.

    Attributes:
        subject: description of the workload, for people.
        ways: the measured core splits, in fp32.
        bf16: steps per second in bf16 over those in fp32, in one process.
    """

    subject: str
    ways: tuple[MeasuredSplit, ...] = Field(min_length=1)
    bf16: Rate

    def best(self, threads: int | None = None) -> MeasuredSplit | None:
        """Return the best split: of those close to the fastest, fewest threads, then most workers.

        Args:
            threads: consider only splits with this many threads per worker.

        Returns:
            None if no such split was measured.
        """
        splits = [split for split in self.ways if threads in (None, split.threads)]
        if not splits:
            return None
        enough = max(split.steps_per_s for split in splits) / MARGIN
        fast = [split for split in splits if split.steps_per_s >= enough]
        return min(fast, key=lambda split: (split.threads, -split.workers))


class MeasuredGpuUse(Strict):
    """A measured use of a GPU, by one worker.

    Attributes:
        precision: as ``protocol.precision``.
        graphs: whether steps are CUDA graphs.
        streams: learners whose graphs run at the same time.
        steps_per_s: training steps per second of all learners together.
    """

    precision: Literal["fp32", "tf32", "bf16"]
    graphs: bool
    streams: Positive
    steps_per_s: Rate

    def __str__(self) -> str:
        """Return the settings of ``executor``."""
        return f"{{graphs: auto, streams: {self.streams}}}" if self.graphs else "{graphs: never}"


class GpuTuning(Strict):
    """Measurements of a GPU.

    Attributes:
        subject: description of the workload, for people.
        uses: the measured uses.
    """

    subject: str
    uses: tuple[MeasuredGpuUse, ...] = Field(min_length=1)

    def best(self, precision: str | None = None) -> MeasuredGpuUse | None:
        """Return the best use: of those close to the fastest, fewest streams, then graphs.

        Args:
            precision: consider only uses with this precision; None: with the first one measured,
                since a comparison of the executor's settings must not change results.

        Returns:
            None if no such use was measured.
        """
        wanted = precision or self.uses[0].precision
        uses = [use for use in self.uses if use.precision == wanted]
        if not uses:
            return None
        enough = max(use.steps_per_s for use in uses) / MARGIN
        return min(
            (use for use in uses if use.steps_per_s >= enough),
            key=lambda use: (use.streams, not use.graphs),
        )


def precision_advice(ratio: float, where: str, fast: bool, name: str = "bf16") -> str:
    """Return the recommended precision as a sentence.

    Args:
        ratio: speed of the precision ``name`` over that of fp32.
        where: name of the measured device.
        fast: whether the device has hardware for the precision.
    """
    speed = f"{name} trains at {ratio:.2f} times the speed of fp32 on {where}"
    if ratio >= MARGIN:
        return f"{speed}: protocol.precision: {name} pays, but changes results and run ids"
    return f"{speed}{'' if fast else ', which has no AMX'}: leave precision at fp32"


def path() -> Path:
    """Return the path of the file with the tunings."""
    if configured := os.environ.get("KDBENCH_MACHINE"):
        return Path(configured)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "kdbench" / "machine.json"


def machine_name() -> str:
    """Return the key of this machine's tuning: host, processor, usable cores, torch."""
    torch = environment.versions().get("torch", "?")
    parts = socket.gethostname(), environment.processor(), f"{cores()} cores", f"torch {torch}"
    return ", ".join(parts)


def load() -> Tuning | None:
    """Load this machine's tuning; None if there is none, or if the file cannot be read."""
    try:
        return Tuning.model_validate(_read_all().get(machine_name()))
    except ValidationError:
        return None


def load_gpu(gpu: str) -> GpuTuning | None:
    """Load the tuning of a GPU of this machine, by its name; None as for ``load``."""
    try:
        return GpuTuning.model_validate(_read_all().get(gpu_key(gpu)))
    except ValidationError:
        return None


def save(tuning: Tuning) -> Path:
    """Save this machine's tuning, and return the path of the file.

    Raises:
        OSError: the file cannot be written.
    """
    return _save(machine_name(), tuning)


def save_gpu(gpu: str, tuning: GpuTuning) -> Path:
    """Save the tuning of a GPU of this machine, and return the path of the file.

    Raises:
        OSError: the file cannot be written.
    """
    return _save(gpu_key(gpu), tuning)


def gpu_key(gpu: str) -> str:
    """Return the key of a GPU's tuning: this machine's, and the GPU's name."""
    return f"{machine_name()}, {gpu}"


def _save(key: str, tuning: Strict) -> Path:
    file = path()
    file.parent.mkdir(parents=True, exist_ok=True)
    tunings = _read_all() | {key: tuning.model_dump(mode="json")}
    write_atomically(file, json.dumps(tunings, indent=1) + "\n")
    return file


def _read_all() -> dict[str, Any]:
    """Read the tunings of all machines, as JSON values."""
    try:
        content = json.loads(path().read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
