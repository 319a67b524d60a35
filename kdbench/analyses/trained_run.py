"""A trained run to look at: its network, methods, teacher and data, frozen and in eval mode."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kdbench.data.batches import Normalise, eval_batches
from kdbench.data.dataset import LoadedData
from kdbench.errors import UserError
from kdbench.grid.run import Run
from kdbench.method import Features, Method
from kdbench.models.network import Network
from kdbench.rng import generator
from kdbench.training import evaluation
from kdbench.training.teacher import LoadedTeacher


class AnalysisError(UserError):
    """Runs that cannot be analysed so; one line."""


class TestOutputs(NamedTuple):
    """A network on the whole test set: embeddings [N, D] and deployed logits [N, K]."""

    embedding: Tensor
    logits: Tensor


@dataclass(frozen=True, eq=False)
class TeacherOnData:
    """A teacher and the data it is asked about.

    Attributes:
        arch, run: of the teacher.
    """

    arch: str
    run: str
    loaded: LoadedTeacher
    data: LoadedData

    @cached_property
    def test(self) -> TestOutputs:
        """The teacher on the test set, on the CPU."""
        return _seen(self.loaded.fast, lambda f: f.logits, self.data)


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """One trained run.

    Attributes:
        label: what tells it from the other runs of an analysis.
        network: the student. methods: one per term of the run.
        guide: its teacher; None where neither it nor a run beside it has one.
    """

    run: Run
    label: str
    network: Network
    methods: Sequence[Method]
    guide: TeacherOnData | None
    data: LoadedData

    def predict(self, f: Features) -> Tensor:
        """The deployed logits, [B, K]: a method's, where it predicts by itself."""
        for method in self.methods:
            if type(method).predict is not Method.predict:
                return method.predict(f)
        return f.logits

    @cached_property
    def test(self) -> TestOutputs:
        """The student on the test set, on the CPU."""
        return _seen(self.network, self.predict, self.data)

    def taught(self) -> TeacherOnData:
        """The teacher.

        Raises:
            AnalysisError: there is none.
        """
        if self.guide is None:
            raise AnalysisError(
                f"run {self.run.id} ({self.run.method}) has no teacher to compare it with: give a "
                "run beside it that has one"
            )
        return self.guide

    def looks(self, split: str, most: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of the run's size: images [B, C, H, W] and their positions [B].

        In an order that is the same for all runs, as similarities within a batch depend on who is
        in it and a test set may lie sorted by class. The last, smaller batch is left out, as in
        training, unless it is the only one. Nothing is augmented.

        Args:
            split: "train" or "test".
            most: as many batches at most.
        """
        images = self.data.train_images if split == "train" else self.data.test_images
        order = torch.randperm(len(images), generator=generator(0, "analyse", split))
        size = self.run.training.batch_size
        count = max(1, len(images) // size)
        normalise = Normalise(self.data)
        for index in order.split(size)[: min(count, most or count)]:
            yield normalise(images[index.to(images.device)]), index

    @torch.no_grad()
    def both(self, images: Tensor) -> tuple[Features, Features]:
        """The student's and the teacher's features of a batch."""
        s: Features = self.network(images)
        return s, self.taught().loaded(images)


@torch.no_grad()
def _seen(network: nn.Module, predict: object, data: LoadedData) -> TestOutputs:
    embeddings, logits = [], []
    for images, _ in eval_batches(data.test_images, data.test_labels, data, evaluation.BATCH):
        f: Features = network(images)
        embeddings.append(f.embedding.float().cpu())
        logits.append(predict(f).float().cpu())  # type: ignore[operator]
    return TestOutputs(torch.cat(embeddings), torch.cat(logits))


def labels(runs: Sequence[Run]) -> list[str]:
    """What tells runs apart: the method, and of pair, data and seed what differs among them."""
    pairs = [f"{r.teacher.arch} → {r.student}" if r.teacher else r.student for r in runs]
    several = len({run.student for run in runs}), len({run.teacher for run in runs if run.teacher})
    parts = [[pair] if max(several) > 1 else [] for pair in pairs]
    for part, run in zip(parts, runs, strict=True):
        part.append(run.method)
    for values in ([run.dataset.title for run in runs], [f"seed {run.seed}" for run in runs]):
        if len(set(values)) > 1:
            for part, value in zip(parts, values, strict=True):
                part.append(value)
    told = [", ".join(part) for part in parts]
    called = {
        label: {r.id for r, x in zip(runs, told, strict=True) if x == label} for label in told
    }
    return [
        label if len(called[label]) == 1 else f"{label}, {run.id[:8]}"
        for label, run in zip(told, runs, strict=True)
    ]
