"""Selection of a swept value on held-out images."""

import pytest
from tiny_runs import alone

from kdbench.errors import UserError
from kdbench.grid.parsing import parse
from kdbench.grid.run import Cell
from kdbench.report.selection import choices, render
from kdbench.runs.records import Record, Result, Status


def record(run: str, val: float, test: float, status: Status = "done") -> Record:
    result = Result(
        epoch=1, steps=1, train_loss=1.0, train_acc=1.0, test_loss=1.0, test_acc=test,
        test_top5=99.0, best_acc=test, best_epoch=1, weights="w", data="d", n_train=9, n_test=9,
        val_acc=val,
    )  # fmt: skip
    return Record(run, status, result=result)


def cells() -> tuple[list[Cell], dict[str, Record]]:
    """Return cells of two values; the second is better on held-out and worse on test images."""
    made, records = [], {}
    seed = 0
    for label, vals, test in (
        ("at(beta=1)", (80.0, 82.0), 99.0),
        ("at(beta=9)", (90.0, 92.0), 50.0),
    ):
        for student in ("r8w3", "v5w4"):
            runs = []
            for val in vals:
                run = alone(seed := seed + 1, student=student)
                records[run.id] = record(run.id, val, test)
                runs.append(run)
            made.append(Cell(label, "r8w16", student, tuple(runs)))
    return made, records


def test_best_value_is_chosen_on_held_out_images() -> None:
    made, records = cells()
    by_label = {choice.label: choice for choice in choices(made, records)}
    assert by_label["at(beta=1)"].val_acc == 81.0
    assert by_label["at(beta=9)"].val_acc == 91.0
    assert [c.label for c in by_label.values() if c.best] == ["at(beta=9)"]
    assert by_label["at(beta=9)"].per_pair == {"r8w16 -> r8w3": 91.0, "r8w16 -> v5w4": 91.0}


def test_diverged_run_counts_as_0() -> None:
    made, records = cells()
    bad = made[2].runs[0].id
    records[bad] = record(bad, 90.0, 50.0, "diverged")
    by_label = {choice.label: choice for choice in choices(made, records)}
    assert by_label["at(beta=9)"].val_acc == pytest.approx((46.0 + 91.0) / 2)
    assert [c.label for c in by_label.values() if c.best] == ["at(beta=1)"]


def test_grid_without_held_out_images_is_refused() -> None:
    tree = {"name": "x", "dataset": "digits", "protocol": "demo", "seeds": [0]}
    grid = parse(tree | {"pairs": ["r8w16 -> r8w3"]}, source="x.yaml")
    with pytest.raises(UserError, match=r"x\.yaml: dataset\.validation: missing"):
        render(grid, [], {})
