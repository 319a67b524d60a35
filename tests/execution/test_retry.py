"""Checkpoints that are not those of their records: restored backups, copies of other machines."""

from dataclasses import replace
from pathlib import Path

import pytest
from debug_runner import train_all
from small_grids import cell, expanded
from tiny_runs import TRAINING, alone, numbers, taught, train

from kdbench.execution import retry
from kdbench.execution.work import JobError
from kdbench.grid.expand import Expansion
from kdbench.runs import records
from kdbench.training import checkpoint


def test_teacher_whose_checkpoint_was_replaced_is_trained_again(tmp_path: Path) -> None:
    training = TRAINING.model_copy(update={"epochs": 1})
    teacher = alone(student="r8w4", training=training)
    student = replace(taught(teacher, "kd"), training=training)
    other = alone(7, student="r8w4", training=training)
    train([teacher], tmp_path)
    train([other], tmp_path)
    before = numbers(tmp_path, teacher)
    path = tmp_path / teacher.id / "checkpoint.pt"
    path.write_bytes((tmp_path / other.id / "checkpoint.pt").read_bytes())
    with pytest.raises(
        JobError, match=r"not the weights that .* names; .*`kdbench retry` with"
    ) as e:
        train_all([teacher, student], tmp_path)
    assert "\n" not in str(e.value)
    grid = Expansion((), (teacher, student))
    assert retry.forget(grid, tmp_path, {"failed"}) == [teacher]
    assert (tmp_path / teacher.id / "checkpoint.other.pt").exists()
    train_all([teacher, student], tmp_path)
    assert numbers(tmp_path, teacher) == before
    record = records.read(tmp_path, student.id)
    assert record is not None and record.status == "done"
    assert retry.forget(grid, tmp_path, {"failed"}) == []


def test_training_resumes_from_a_checkpoint_of_the_middle(tmp_path: Path) -> None:
    """An earlier owner has overwritten the final checkpoint by one from which to resume."""
    grid = expanded()
    teacher = cell(grid, "teacher").runs[0]
    record = train([alone(student="r8w4")], tmp_path / "other").popitem()[1]
    records.write_run(tmp_path, teacher)
    records.write(tmp_path, replace(record, run=teacher.id))
    checkpoint.save(tmp_path / teacher.id, {"model": {}, "optimizer": {}})
    assert retry.forget(grid, tmp_path, {"failed"}) == [teacher]
    assert (tmp_path / teacher.id / "checkpoint.pt").exists()
    assert not records.has_record(tmp_path, teacher.id)
