"""Teachers trained elsewhere: imported, measured, and used by a grid."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
import torch
import yaml
from small_grids import cell, kdbench, write

from kdbench.data.batches import eval_batches
from kdbench.grid.expand import expand
from kdbench.grid.parsing import load
from kdbench.grid.repeat_command import Commands
from kdbench.grid.run import Teacher
from kdbench.grid.settings import Dataset
from kdbench.models import zoo
from kdbench.runs import records
from kdbench.training import teacher as teachers
from kdbench.training import teacher_accuracy
from kdbench.training.import_teacher import ImportedTeacher


def test_imported_teacher_is_used_by_a_grid(tmp_path: Path) -> None:
    torch.manual_seed(0)
    folder = tmp_path / "r8w4_vanilla"
    folder.mkdir()
    path = folder / "ckpt_epoch_240.pth"
    weights = zoo.create("r8w4", num_classes=10).state_dict()
    torch.save({"epoch": 240, "model": weights}, path)
    runs = tmp_path / "runs"
    flags = ("teacher", "import", path, "--dataset", "synthetic", "--runs", runs)
    result = kdbench(*flags)
    assert result.exit_code == 0, result.output
    run_id = result.stdout.split("r8w4: ")[2].strip(" }\n")
    assert run_id.startswith("import-")
    record = records.read(runs, run_id)
    assert record is not None and record.result is not None and record.status == "done"
    assert f"{record.result.test_acc:.2f} % on synthetic" in result.stdout
    run_json = json.loads((runs / run_id / "run.json").read_text())
    assert (run_json["student"], run_json["dataset"]) == ("r8w4", {"name": "synthetic"})
    assert kdbench(*flags).stdout == result.stdout

    grid = write(tmp_path, teachers={"r8w4": run_id})
    folders = ("--runs", runs, "--results", tmp_path / "results")
    assert kdbench("run", "--grid", grid, *folders).exit_code == 0
    run = cell(expand(load(grid)), "kd").runs[0]
    kd = records.read(runs, run.id)
    assert kd is not None and kd.result is not None
    assert kd.result.teacher_acc == record.result.test_acc
    assert f"teachers={{r8w4: {run_id}}}" in Commands(partial(records.read_run, runs))(run)
    assert "r8w4, imported" in kdbench("show", run_id, "--runs", runs).stdout


def imported(folder: Path, seed: int, dataset: str) -> tuple[str, float, str]:
    """Import an untrained r8w4, and return the run's id, the printed accuracy and the warning."""
    torch.manual_seed(seed)
    path = folder / "weights.pth"
    torch.save(zoo.create("r8w4", num_classes=10, in_channels=1).state_dict(), path)
    flags = ("--arch", "r8w4", "--dataset", dataset, "--runs", folder / "runs")
    result = kdbench("teacher", "import", path, *flags)
    assert result.exit_code == 0, result.output
    first, _, last = result.stdout.splitlines()
    return last.split("r8w4: ")[1].rstrip("}"), float(first.split()[1]), result.stderr


def test_accuracy_of_an_imported_teacher_is_that_on_the_data_of_the_grid(tmp_path: Path) -> None:
    small, large = "{name: digits, per_class: 10}", "{name: digits, per_class: 10, size: 16}"
    run_id, acc, _ = imported(tmp_path, 0, small)
    runs = tmp_path / "runs"
    grid = write(tmp_path, dataset=yaml.safe_load(large), teachers={"r8w4": run_id})
    folders = ("--runs", runs, "--results", tmp_path / "results")
    result = kdbench("run", "--grid", grid, *folders)
    assert result.exit_code == 0, result.output
    kd = records.read(runs, cell(expand(load(grid)), "kd").runs[0].id)
    assert kd is not None and kd.result is not None
    before = (runs / run_id / "run.json").read_text()
    again, measured, _ = imported(tmp_path, 0, large)
    assert again == run_id and measured != acc
    assert f"{kd.result.teacher_acc:.2f}" == f"{measured:.2f}"
    page = tmp_path / "results" / "small" / "leaderboard.md"
    assert f"{measured:.2f} (imported)" in page.read_text()
    # The run stays that of the first import: record and run.json name the same data.
    assert (runs / run_id / "run.json").read_text() == before
    record = records.read(runs, run_id)
    assert record is not None and record.result is not None
    assert f"{record.result.test_acc:.2f}" == f"{acc:.2f}"


def test_accuracy_of_a_named_run_is_that_on_the_data_of_the_grid(tmp_path: Path) -> None:
    first = write(tmp_path, dataset={"name": "digits", "per_class": 10}, methods=[])
    folders = ("--runs", tmp_path / "runs", "--results", tmp_path / "results")
    assert kdbench("run", "--grid", first, *folders).exit_code == 0
    teacher = cell(expand(load(first)), "teacher").runs[0]
    dataset: dict[str, Any] = {"name": "digits", "per_class": 10, "size": 16}
    changes = {"name": "other", "dataset": dataset, "teachers": {"r8w4": teacher.id}}
    second = write(tmp_path, **changes)
    assert kdbench("run", "--grid", second, *folders).exit_code == 0
    run = cell(expand(load(second)), "kd").runs[0]
    kd, own = records.read(tmp_path / "runs", run.id), records.read(tmp_path / "runs", teacher.id)
    assert kd is not None and kd.result is not None and kd.result.teacher_acc is not None
    assert own is not None and own.result is not None
    data = tiny_runs.data(Dataset(**dataset))
    loaded = teachers.load(
        tmp_path / "runs",
        Teacher("r8w4", teacher.id),
        num_classes=10,
        in_channels=1,
        device=tiny_runs.CPU,
    )
    with torch.no_grad():
        batches = eval_batches(data.test_images, data.test_labels, data, 500)
        right = sum(
            int((loaded.network(images).logits.argmax(1) == labels).sum())
            for images, labels in batches
        )
    assert kd.result.teacher_acc == 100 * right / len(data.test_labels) != own.result.test_acc


@pytest.mark.parametrize("teacher", [{}, {"label_noise": 0.3}])
def test_teacher_on_the_same_test_images_is_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, teacher: dict[str, Any]
) -> None:
    def never(*args: object) -> float:
        raise AssertionError("measured again")

    monkeypatch.setattr(teacher_accuracy, "measured", never)
    grid = write(tmp_path, teacher={"dataset": {"name": "synthetic"} | teacher})
    folders = ("--runs", tmp_path / "runs", "--results", tmp_path / "results")
    assert kdbench("run", "--grid", grid, *folders).exit_code == 0


def test_teacher_near_chance_is_reported(tmp_path: Path) -> None:
    _, acc, warning = imported(tmp_path, 0, "digits")
    assert f"warning: {acc:.2f} % is close to chance, 10 % for 10 classes" in warning
    for classes, acc, near in (
        (10, 29.9, True),
        (10, 30.1, False),
        (100, 2.9, True),
        (100, 3.1, False),
        (2, 74.0, True),
        (2, 76.0, False),
    ):
        assert ImportedTeacher("import-a", "r8w4", acc, "digits", classes).near_chance is near
