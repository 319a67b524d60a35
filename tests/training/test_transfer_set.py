"""Model compression end to end: a teacher with labels, students on images without."""

import math
from pathlib import Path

import pytest
from tiny_runs import TRAINING, alone, numbers, stop_after, taught, train

from kdbench.grid.run import Run
from kdbench.grid.settings import Dataset
from kdbench.grid.transfer_set import TransferSet
from kdbench.runs import history, records
from kdbench.training.cohort import Stopped

DIGITS = Dataset(name="digits")
CHANCE = 100 * 0.1
RECIPE = TRAINING.model_copy(update={"epochs": 8, "batch_size": 64, "flip": False})
LABELLED = alone(
    student="r8w4", dataset=DIGITS, training=RECIPE.model_copy(update={"batch_size": 16})
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    record = train([LABELLED], folder)[LABELLED.id]
    assert record.result is not None and record.result.test_acc > 80
    return folder


def student(transfer: TransferSet, epochs: int = RECIPE.epochs) -> Run:
    """Return a student of the teacher that matches its logits on a transfer set."""
    dataset = DIGITS.model_copy(update={"transfer": transfer})
    recipe = RECIPE.model_copy(update={"epochs": epochs})
    return taught(LABELLED, "mimic", dataset=dataset, training=recipe, gamma=0.0, alpha=0.0)


def test_student_learns_the_digits_from_noise(folder: Path) -> None:
    run = student(TransferSet(name="noise", images=4000))
    result = train([run], folder)[run.id].result
    assert result is not None
    assert result.test_acc > 2.5 * CHANCE
    assert (result.n_train, result.n_test) == (4000, 897)
    assert result.steps == RECIPE.epochs * (4000 // RECIPE.batch_size)
    teacher = records.read(folder, LABELLED.id)
    assert teacher is not None and teacher.result is not None
    assert result.teacher_acc == teacher.result.test_acc


def test_there_is_no_training_accuracy_without_labels(folder: Path) -> None:
    run = student(TransferSet(name="synthetic"), epochs=2)
    record = train([run], folder)[run.id]
    assert record.result is not None and math.isnan(record.result.train_acc)
    rows = history.read(folder, run.id, record=record)
    assert len(rows) == 2
    assert all("train_acc" not in row and row["train_loss"] > 0 for row in rows)
    stored = records.read(folder, run.id)
    assert stored is not None and stored.result is not None
    assert math.isnan(stored.result.train_acc)


def test_resumed_run_on_noise_equals_an_uninterrupted_one(folder: Path, tmp_path: Path) -> None:
    run = student(TransferSet(name="noise", images=200), epochs=3)
    train([run], folder)
    expected = numbers(folder, run)
    again = tmp_path / "runs"
    train([LABELLED], again)
    with pytest.raises(Stopped):
        train([run], again, stop=stop_after(5))
    assert records.read(again, run.id) is None
    train([run], again)
    assert repr(numbers(again, run)) == repr(expected)  # nan equals nan in text only
