"""What a method takes from a batch besides its tensors: numbers and random generators."""

from typing import Any

import torch

from kdbench.method import Batch
from kdbench.rng import key


class NotCapturable(RuntimeError):
    """A step cannot be a graph; one line says why. It is then run operation by operation."""


class WatchedBatch(Batch):
    """A batch that notes which of its numbers a method reads, and keeps its generators."""

    def __init__(self, batch: Batch, watch: "Watch") -> None:
        # The dataclass is frozen, and its numbers are properties here.
        vars(self).update(
            images=batch.images,
            labels=batch.labels,
            index=batch.index,
            epochs=batch.epochs,
            views=batch.views,
            _batch=batch,
            _watch=watch,
        )

    @property
    def epoch(self) -> int:
        """As in ``Batch``; a step whose method reads it is recorded once an epoch."""
        self._watch.read.add("epoch")
        return self._batch.epoch

    @property
    def progress(self) -> float:
        """As in ``Batch``; a step whose method reads it cannot be recorded."""
        self._watch.read.add("progress")
        return self._batch.progress

    @property
    def step(self) -> int:
        """As in ``Batch``; a step whose method reads it cannot be recorded."""
        self._watch.read.add("step")
        return self._batch.step

    def generator(self, seed: int, *purpose: str | int) -> torch.Generator:
        """As in ``Batch``; each step seeds the same generators."""
        return self._watch.lend(self.labels.device, self._batch.step, (seed, *purpose))

    _batch: Batch
    _watch: "Watch"


class Watch:
    """What the methods of a learner take from a batch besides its tensors.

    Attributes:
        read: names of the numbers that were read: "epoch", "progress", "step".
        recording: whether a step is being recorded, when generators cannot be seeded.
    """

    def __init__(self) -> None:
        self.read: set[str] = set()
        self.recording = False
        self._made: dict[tuple[Any, ...], torch.Generator] = {}
        self._lent: list[tuple[Any, ...]] = []

    @property
    def generators(self) -> list[torch.Generator]:
        """Every generator lent so far."""
        return list(self._made.values())

    def begin(self) -> None:
        """Begin a step."""
        self._lent = []

    def lend(self, device: torch.device, step: int, purpose: tuple[Any, ...]) -> torch.Generator:
        """Return the generator of a purpose, seeded for a step; a second one if asked again."""
        name = (*purpose, self._lent.count(purpose))
        self._lent.append(purpose)
        if name not in self._made:
            if self.recording:
                raise NotCapturable(f"a generator for {purpose} is new in this step")
            self._made[name] = torch.Generator(device)
        if not self.recording:
            self._made[name].manual_seed(key(*purpose, step))
        return self._made[name]

    def seed(self, step: int) -> None:
        """Seed every generator for a step."""
        for name, generator in self._made.items():
            generator.manual_seed(key(*name[:-1], step))
