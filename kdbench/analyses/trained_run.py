"""A trained run for analyses: its network, methods, teacher and data, frozen, in eval mode."""

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
    """Error for runs that an analysis cannot use; one line."""


class TestOutputs(NamedTuple):
    """Outputs for the whole test set: embeddings [N, D] and deployed logits [N, K]."""

    embedding: Tensor
    logits: Tensor


@dataclass(frozen=True, eq=False)
class TeacherOnData:
    """A teacher and the data set that it is analysed on.

    Attributes:
        arch: architecture of the teacher.
        run: id of the teacher's run.
    """

    arch: str
    run: str
    loaded: LoadedTeacher
    data: LoadedData

    @cached_property
    def test(self) -> TestOutputs:
        """The teacher's outputs for the test set, on the CPU."""
        return _outputs(self.loaded.fast, lambda f: f.logits, self.data)


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """One trained run.

    Attributes:
        label: name of the run, unique within an analysis.
        network: the trained student.
        methods: one method per loss term of the run.
        teacher: its own teacher, or that of another analysed run; None if there is none.
    """

    run: Run
    label: str
    network: Network
    methods: Sequence[Method]
    teacher: TeacherOnData | None
    data: LoadedData

    def predict(self, f: Features) -> Tensor:
        """Return the deployed logits, [B, K]; a method may define its own prediction."""
        for method in self.methods:
            if type(method).predict is not Method.predict:
                return method.predict(f)
        return f.logits

    @cached_property
    def test(self) -> TestOutputs:
        """The student's outputs for the test set, on the CPU."""
        return _outputs(self.network, self.predict, self.data)

    def require_teacher(self) -> TeacherOnData:
        """Return the teacher.

        Raises:
            AnalysisError: there is no teacher.
        """
        if self.teacher is None:
            raise AnalysisError(
                f"run {self.run.id} ({self.run.method}) has no teacher to compare it with: also "
                "give a run that has one"
            )
        return self.teacher

    def batches(self, split: str, limit: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches of the run's batch size: images [B, C, H, W] and their positions [B].

        The order is the same for all runs, because similarities within a batch depend on its
        images, and random, because a test set may be sorted by class. A last, smaller batch is
        dropped, as in training, unless it is the only batch. Images are not augmented.

        Args:
            split: "train" or "test".
            limit: largest number of batches; None for all.
        """
        images = self.data.train_images if split == "train" else self.data.test_images
        order = torch.randperm(len(images), generator=generator(0, "analyse", split))
        size = self.run.training.batch_size
        count = max(1, len(images) // size)
        normalise = Normalise(self.data)
        for index in order.split(size)[: min(count, limit or count)]:
            yield normalise(images[index.to(images.device)]), index

    @torch.no_grad()
    def features(self, images: Tensor) -> tuple[Features, Features]:
        """Return the student's and the teacher's features of a batch."""
        s: Features = self.network(images)
        return s, self.require_teacher().loaded(images)


@torch.no_grad()
def _outputs(network: nn.Module, predict: object, data: LoadedData) -> TestOutputs:
    embeddings, logits = [], []
    for images, _ in eval_batches(data.test_images, data.test_labels, data, evaluation.BATCH):
        f: Features = network(images)
        embeddings.append(f.embedding.float().cpu())
        logits.append(predict(f).float().cpu())  # type: ignore[operator]
    return TestOutputs(torch.cat(embeddings), torch.cat(logits))


def labels(runs: Sequence[Run]) -> list[str]:
    """Return unique labels: the method, and the pair, data set and seed if they differ."""
    pairs = [f"{run.teacher.arch} → {run.student}" if run.teacher else run.student for run in runs]
    students = {run.student for run in runs}
    teachers = {run.teacher for run in runs if run.teacher}
    parts = [[pair] if max(len(students), len(teachers)) > 1 else [] for pair in pairs]
    for part, run in zip(parts, runs, strict=True):
        part.append(run.method)
    for values in ([run.dataset.title for run in runs], [f"seed {run.seed}" for run in runs]):
        if len(set(values)) > 1:
            for part, value in zip(parts, values, strict=True):
                part.append(value)
    names = [", ".join(part) for part in parts]
    ids: dict[str, set[str]] = {}
    for name, run in zip(names, runs, strict=True):
        ids.setdefault(name, set()).add(run.id)
    return [
        name if len(ids[name]) == 1 else f"{name}, {run.id[:8]}"
        for name, run in zip(names, runs, strict=True)
    ]
