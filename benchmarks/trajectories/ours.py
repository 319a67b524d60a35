"""kdbench's side: a grid is parsed, expanded and trained by cohorts, in float64."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from kdbench.data.batches import eval_batches, train_batches
from kdbench.data.dataset import LoadedData, load
from kdbench.grid.expand import expand
from kdbench.grid.parsing import parse
from kdbench.grid.run import Run
from kdbench.method import Batch, Features
from kdbench.registry import lookup
from kdbench.runs import records
from kdbench.training import teacher as teachers
from kdbench.training.build import build_network, dry_run
from kdbench.training.cohort import Cohort
from kdbench.training.context import TrainingContext
from kdbench.training.learner import Learner
from kdbench.training.objective import Loss

from .images import CLASSES, batch_size, write_images
from .matching import State

CPU = torch.device("cpu")
Epoch = list[tuple[Tensor, ...]]
"""Batches of images, labels and positions in the training set."""


@dataclass
class Trajectory:
    """What a training started from and what it led to.

    Attributes:
        student: the student's tensors.
        modules: tensors of the methods.
        losses: of every step, of both phases.
    """

    student: State
    modules: State
    losses: list[float] = field(default_factory=list)


@dataclass
class Ours:
    """Trainings of several rows on the same batches.

    Attributes:
        teacher: the teacher's tensors.
        features: student's and teacher's, of two images, for their shapes.
        lr: the protocol's learning rate for this student.
        before: what each row started from; rows that cannot work on this pair are missing.
        after: what each row led to.
        negatives: for each row and step the positions of CRD's samples, [B, 1 + K].
        batches: of each phase, ``pretrain`` and ``train``, the epochs.
        test: images and labels of the test set.
        skipped: reasons of the rows that cannot work.
        failed: reasons of the rows that failed or diverged.
    """

    teacher: State
    features: tuple[Features, Features]
    lr: float
    before: dict[str, Trajectory] = field(default_factory=dict)
    after: dict[str, Trajectory] = field(default_factory=dict)
    negatives: dict[str, list[Tensor]] = field(default_factory=dict)
    batches: dict[str, list[Epoch]] = field(default_factory=dict)
    test: Epoch = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


class RecordedLearner(Learner):
    """A learner that keeps its first state and its losses."""

    def __init__(self, run: Run, **parts: Any) -> None:
        super().__init__(run, **parts)
        self.before = self.trajectory()
        self.losses: list[float] = []

    def trajectory(self) -> Trajectory:
        """Return a copy of the present tensors."""
        modules = {
            name.partition(".")[2]: x.clone() for name, x in self.methods.state_dict().items()
        }
        return Trajectory({k: x.clone() for k, x in self.student.state_dict().items()}, modules)

    def _loss(self, s: Features, t: Features, batch: Batch) -> Loss:
        loss = super()._loss(s, t, batch)
        self.losses.append(float(loss.total.detach()))
        return loss


def train(
    rows: Mapping[str, Mapping[str, Any]],
    preset: str,
    pair: tuple[str, str],
    *,
    epochs: int,
    steps: int,
    folder: Path,
) -> Ours:
    """Train the rows of a grid, in one cohort.

    Args:
        rows: options by the methods of a row.
        preset: protocol.
        pair: teacher and student.
        epochs: of each phase; the learning rate drops after the first.
        steps: batches of an epoch.
        folder: empty; images, runs and teacher are written to it.
    """
    size = batch_size(steps)
    write_images(folder / "images", steps * size)
    recipe = {"preset": preset, "batch_size": size}
    phases = {"epochs": epochs, "pretrain_epochs": epochs, "schedule": {"milestones": [1]}}
    tree = {
        "name": "trajectories",
        "dataset": {"name": "imagefolder", "root": str(folder / "images")},
        "protocol": recipe | phases,
        "teacher": {"protocol": recipe | {"epochs": 1}},
        "seeds": [1],
        "pairs": [f"{pair[0]} -> {pair[1]}"],
        "methods": [{row: dict(options) | {"label": row}} for row, options in rows.items()],
    }
    expansion = expand(parse(tree, source="benchmarks.trajectories"))
    runs = {cell.method: cell.runs[0] for cell in expansion.cells}
    with float64():
        data = load(runs["teacher"].dataset, folder / "data", CPU)
        context = TrainingContext(folder / "runs", CPU)
        _cohort([runs["teacher"]], None, data, context)
        first = runs[next(iter(rows))].teacher
        assert first is not None
        teacher = teachers.load(context.runs, first, num_classes=CLASSES, in_channels=3, device=CPU)
        batches: dict[str, list[Epoch]] = {"pretrain": [], "train": []}
        drawn: dict[nn.Module, list[Tensor]] = {}
        with recording(batches), recording_samples(drawn):
            learners = _cohort([runs[row] for row in rows], teacher, data, context)
        student = build_network(runs["student"], num_classes=CLASSES, in_channels=3)
        result = Ours(
            teacher.network.state_dict(),
            (dry_run(student, 3, 32), dry_run(teacher.network, 3, 32)),
            runs["student"].training.lr,
            batches=batches,
            test=[tuple(x) for x in _test(data)],
        )
    for row in rows:
        learner = learners.get(runs[row].id)
        if learner is None:
            record = records.read(context.runs, runs[row].id)
            impossible = record is not None and record.status == "skipped"
            reasons = result.skipped if impossible else result.failed
            reasons[row] = (record.reason if record else None) or "no record"
            continue
        if learner.status != "done":
            result.failed[row] = learner.reason
            continue
        after = learner.trajectory()
        after.losses = learner.losses
        result.before[row], result.after[row] = learner.before, after
        result.negatives[row] = [x for method in learner.terms for x in drawn.get(method, ())]
    return result


def _test(data: LoadedData) -> Iterator[tuple[Tensor, Tensor]]:
    return eval_batches(
        data.test_images, data.test_labels, data, 50, channels_last=False, dtype=torch.float64
    )


def _cohort(
    runs: Sequence[Run],
    teacher: teachers.LoadedTeacher | None,
    data: LoadedData,
    context: TrainingContext,
) -> dict[str, RecordedLearner]:
    """Train runs, and return the learners of those that can work, by the runs' ids."""
    learners: dict[str, RecordedLearner] = {}

    def build(run: Run, **parts: Any) -> Learner:
        return learners.setdefault(run.id, RecordedLearner(run, **parts))

    with patch("kdbench.training.cohort.Learner", build):
        Cohort(runs, teacher, data, context).train()
    return learners


@contextmanager
def float64() -> Iterator[None]:
    """Train whole runs in float64, in which rounding stays far below any mistake."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    wide = {
        "kdbench.training.steps.train_batches": partial(train_batches, dtype=torch.float64),
        "kdbench.training.cohort.eval_batches": partial(eval_batches, dtype=torch.float64),
    }
    try:
        with ExitStack() as patches:
            for name, batches in wide.items():
                patches.enter_context(patch(name, batches))
            yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def recording(batches: dict[str, list[Epoch]]) -> Iterator[None]:
    """Add the batches that the engine asks for to ``batches``, by the phase."""

    def feed(*data: Any, purpose: str, **options: Any) -> Iterator[tuple[Tensor, ...]]:
        epoch = list(train_batches(*data, purpose=purpose, dtype=torch.float64, **options))
        batches[purpose].append([(x.contiguous(), *rest) for x, *rest in epoch])
        return iter(epoch)

    with patch("kdbench.training.steps.train_batches", feed):
        yield


@contextmanager
def recording_samples(drawn: dict[nn.Module, list[Tensor]]) -> Iterator[None]:
    """Add CRD's samples of every step to ``drawn``, by the method: positions, [B, 1 + K]."""
    crd: Any = lookup.load("crd")
    draw = crd.draw

    def recorded(self: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        positive, counts = draw(self, batch)
        every = torch.arange(counts.shape[1])
        rows = torch.stack([every.repeat_interleave(row.long()) for row in counts])
        drawn.setdefault(self, []).append(torch.cat((positive[:, None], rows), 1))
        return positive, counts

    with patch.object(crd, "draw", recorded):
        yield
