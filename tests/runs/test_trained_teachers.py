"""Teachers that a grid names by run id."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_grids import done, make_record
from small_grids import cell, small

from kdbench.grid.expand import expand
from kdbench.grid.grid import GridError
from kdbench.runs import records
from kdbench.runs.evidence import gather
from kdbench.runs.trained_teachers import check_teachers
from kdbench.stats.cell_summary import teacher_accuracy


def adopted(runs: Path, run_id: str, about: str, status: Any = "done") -> None:
    (runs / run_id).mkdir(parents=True)
    (runs / run_id / "run.json").write_text(about)
    records.write(runs, replace(done(run_id), status=status))


def test_imported_teachers_must_exist_and_fit(tmp_path: Path) -> None:
    adopted(tmp_path, "import-a", '{"student": "r8w4", "dataset": {"name": "synthetic"}}')
    adopted(tmp_path, "import-b", '{"student": "r8w16", "dataset": {"name": "cifar100"}}')
    adopted(tmp_path, "0123", '{"student": "v5w4", "dataset": {"name": "digits"}}', "diverged")
    check_teachers(small(teachers={"r8w4": "import-a"}), tmp_path)
    grid = small(
        pairs=["r8w4 -> r8w3", "r8w8 -> r8w3", "v5w4 -> r8w3"],
        teachers={"r8w4": "none", "r8w8": "import-b", "v5w4": "0123"},
    )
    with pytest.raises(GridError) as error:
        check_teachers(grid, tmp_path)
    assert [line.partition("teachers.")[2] for line in error.value.lines] == [
        f"r8w4: none: no such run in {tmp_path}; `kdbench teacher import` and `kdbench status` "
        "tell ids",
        "r8w8: import-b: this run trained a r8w16",
        "r8w8: import-b: trained on cifar100, with 100 classes and 3 channels, not 10 and 3",
        "v5w4: 0123: this run is diverged: ",
        "v5w4: 0123: trained on digits, with 10 classes and 1 channels, not 10 and 3",
    ]


@pytest.mark.parametrize(
    ("dataset", "acc", "shown"),
    [
        ("{}", 95.0, True),
        ('{"size": 16}', 95.0, False),  # stored by an earlier version
        ('{"size": 16}', 94.0, True),  # measured again
        ('{"label_noise": 0.3}', 95.0, True),
    ],
)
def test_accuracies_on_other_images_are_not_reported(
    tmp_path: Path, dataset: str, acc: float, shown: bool
) -> None:
    grid = small(teachers={"r8w4": "import-a"})
    expansion = expand(grid)
    student = cell(expansion, "kd").runs[0]
    for run_id in ("import-a", student.id):
        (tmp_path / run_id).mkdir()
    given = '{"name": "synthetic", ' + dataset.removeprefix("{")
    (tmp_path / "import-a" / "run.json").write_text(
        f'{{"student": "r8w4", "dataset": {given.replace(", }", "}")}}}'
    )
    made = make_record(student, 95.0)
    assert made.result
    records.write(tmp_path, replace(made, run="import-a"))
    records.write(tmp_path, replace(made, result=replace(made.result, teacher_acc=acc)))
    evidence = gather(grid, expansion.cells, tmp_path)
    found = teacher_accuracy(expansion.cells, evidence.records)
    assert found == acc if shown else math.isnan(found)


@pytest.mark.parametrize("name", ["record.json", "run.json"])
def test_damaged_teacher_is_told_by_a_report(tmp_path: Path, name: str) -> None:
    """It is not taken for one that was measured on the grid's test images."""
    adopted(tmp_path, "import-a", '{"student": "r8w4", "dataset": {"name": "synthetic"}}')
    grid = small(teachers={"r8w4": "import-a"})
    (tmp_path / "import-a" / name).write_text('{"dataset": {"size": "large"}}')
    with pytest.raises(records.RecordError, match=rf"import-a/{name}: "):
        gather(grid, expand(grid).cells, tmp_path)
