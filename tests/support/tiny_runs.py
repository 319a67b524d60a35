"""Tiny runs for tests: create runs, train them in this process, and read the results."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from kdbench.data.dataset import LoadedData, load
from kdbench.grid.run import Run, Teacher, Term
from kdbench.grid.settings import Dataset, Schedule, Training
from kdbench.registry import lookup
from kdbench.runs import records
from kdbench.runs.records import Record
from kdbench.training import teacher as teachers
from kdbench.training.cohort import Cohort
from kdbench.training.context import TrainingContext

CPU = torch.device("cpu")
DATASET = Dataset(name="digits", per_class=7)
TRAINING = Training(
    epochs=3,
    batch_size=16,
    lr=0.05,
    schedule=Schedule(kind="cosine", warmup=0.1),
    crop_pad=1,
    flip=True,
    pretrain_epochs=2,
)
"""70 images: 4 steps of 16 an epoch, 6 images left over."""


def data(dataset: Dataset = DATASET) -> LoadedData:
    """Load the digits, or a part of them."""
    return load(dataset, Path("data"), CPU)


def alone(seed: int = 0, *, student: str = "r8w3", **changes: Any) -> Run:
    """Return a run of a network without teacher."""
    values: dict[str, Any] = {
        "student": student,
        "teacher": None,
        "dataset": DATASET,
        "training": TRAINING,
        "gamma": 1.0,
        "alpha": 0.0,
        "temperature": 4.0,
        "terms": (),
        "seed": seed,
    }
    return Run(**(values | changes))


def taught(
    teacher: Run, method: str, *, beta: float | None = None, seed: int = 0, **changes: Any
) -> Run:
    """Return a run of a student of ``teacher`` with a method, or several joined by ``+``."""
    terms = []
    pretrain = None
    for name in method.split("+"):
        description = lookup.describe(name)
        terms.append(
            Term(
                description.name,
                description.beta if beta is None else beta,
                lookup.hyper(name, changes.pop("hyper", {})),
                path=str(description.path) if description.external else None,
                source=description.sha256 if description.external else None,
            )
        )
        pretrain = (2, 0.05) if description.has_pretrain else pretrain
    values: dict[str, Any] = {"teacher": Teacher(teacher.student, teacher.id), "alpha": 1.0}
    values |= {"terms": tuple(terms), "method": method, "pretrain": pretrain}
    return alone(seed, **(values | changes))


def train(runs: Sequence[Run], folder: Path, **context: Any) -> dict[str, Record]:
    """Train runs as one cohort, and return their records; their teacher must be trained."""
    folder.mkdir(exist_ok=True)
    loaded = data(runs[0].dataset)
    first = runs[0].teacher
    teacher = None
    if first:
        teacher = teachers.load(
            folder, first, num_classes=loaded.num_classes, in_channels=loaded.channels, device=CPU
        )
    Cohort(runs, teacher, loaded, TrainingContext(folder, CPU, **context)).train()
    return records.load(folder, (run.id for run in runs))


def stop_after(steps: int) -> Callable[[], bool]:
    """Return a ``TrainingContext.stop`` that asks to stop at its n-th call."""
    left = [steps]

    def stop() -> bool:
        left[0] -= 1
        return left[0] <= 0

    return stop


def numbers(folder: Path, run: Run) -> tuple[Any, list[str]]:
    """Return the result and the curve without timings, both reproducible bit for bit."""
    record = records.read(folder, run.id)
    assert record is not None
    lines = (records.folder(folder, run.id) / "history.csv").read_text().splitlines()
    return record.result, [line.rpartition(",")[0] for line in lines]
