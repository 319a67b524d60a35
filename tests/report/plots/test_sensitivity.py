from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from drawn_evidence import curve, points, texts, ticks
from fake_grids import ended, make_cells, make_grid, make_records, make_run
from matplotlib.axes import Axes

from kdbench.grid.grid import Row
from kdbench.grid.run import Cell, Term
from kdbench.grid.settings import Dataset
from kdbench.report.plots import style
from kdbench.report.plots.sensitivity import sensitivity
from kdbench.runs.evidence import Evidence
from kdbench.runs.records import Record


def swept(
    sweep: Mapping[str, Sequence[Any]],
    pairs: Sequence[tuple[str, str]] = (("big", "small"),),
    **changes: Any,
) -> Evidence:
    """Return student, kd and the swept rows of at and irg, with 70 + the row's number + seed."""
    rows = (Row(name="kd"), Row(name="at"), Row(name="irg"))
    values = {key: tuple(numbers) for key, numbers in sweep.items()}
    grid = make_grid(pairs, methods=rows, sweep=values, **changes)
    cells = list(make_cells(grid, ()))
    for teacher, student in pairs:
        source = make_run(grid, teacher, grid.teacher.seed, "teacher")
        for row in rows:
            for label, _ in row.points(values):
                runs = tuple(make_run(grid, student, s, row.name, source) for s in grid.seeds)
                # Ids depend on the term, not on the label.
                runs = tuple(replace(run, method=label, terms=(Term(label, 1.0),)) for run in runs)
                cells.append(Cell(label, teacher, student, runs))
    level = {cell.method: 70.0 + i for i, cell in enumerate(cells)}
    records = make_records(cells, lambda run: level[run.method] + run.seed)
    return Evidence(grid, cells, records, lambda run: [])


def drawn(evidence: Evidence) -> list[Axes]:
    [plot] = sensitivity(evidence)
    return list(plot.figure.axes)


def means(axis: Axes) -> list[tuple[float, float]]:
    line = curve(axis, style.CURVE)
    assert line is not None
    return [(float(x), float(y)) for x, y in np.asarray(line.get_xydata())]


def level(axis: Axes, colour: str) -> float:
    line = curve(axis, colour)
    assert line is not None
    [value] = set(np.asarray(line.get_ydata(), float).tolist())
    return float(value)


def test_each_value_has_its_seeds_and_mean_on_a_log_axis() -> None:
    at, irg = drawn(swept({"at.beta": (1, 10, 100), "irg.beta": (0.5, 5)}))
    assert (at.get_title(), irg.get_title()) == ("at: beta", "irg: beta")
    # teacher 70, student 71, kd 72, then the sweep; seeds 0, 1, 2.
    assert means(at) == [(1, 74), (10, 75), (100, 76)]
    assert sorted(points(at, "o"))[:3] == [(1, 73), (1, 74), (1, 75)]
    assert at.get_xscale() == "log" and ticks(at, "x") == ["1", "10", "100"]
    assert ticks(irg, "x") == ["0.5", "5"] and means(irg) == [(0.5, 77), (5, 78)]
    assert level(at, style.STUDENT) == 72 and level(at, style.BASELINE) == 73


@pytest.mark.parametrize("values", [(0, 1, 10), ("sum", "mean"), (True, False), (-1, 1)])
def test_values_without_a_logarithm_keep_the_order_of_the_grid(values: tuple[Any, ...]) -> None:
    [axis] = drawn(swept({"at.mode": values}))
    assert axis.get_xscale() == "linear" and ticks(axis, "x") == [str(value) for value in values]
    assert [x for x, _ in means(axis)] == list(range(len(values)))


def test_values_in_any_order_are_joined_from_left_to_right() -> None:
    [axis] = drawn(swept({"at.beta": (10, 1, 100)}))
    assert means(axis) == [(1, 75), (10, 74), (100, 76)]


def test_second_hyper_parameter_has_a_panel_per_value() -> None:
    two, four = drawn(swept({"at.beta": (1, 10), "at.temperature": (2, 4)}))
    assert texts(two) == ["temperature=2"] and texts(four) == ["temperature=4"]
    assert means(two) == [(1, 74), (10, 76)] and means(four) == [(1, 75), (10, 77)]


def test_held_out_images_are_preferred_if_every_record_has_them() -> None:
    evidence = swept({"at.beta": (1, 10)}, dataset=Dataset(name="digits", validation=0.2))

    def held_out(record: Record) -> Record:
        assert record.result
        return replace(record, result=replace(record.result, val_acc=record.result.test_acc - 50))

    records = {key: held_out(record) for key, record in evidence.records.items()}
    [plot] = sensitivity(replace(evidence, records=records))
    assert means(plot.figure.axes[0]) == [(1, 24), (10, 25)]
    assert level(plot.figure.axes[0], style.STUDENT) == 22 and "held-out" in plot.alt
    # One cell without held-out accuracy: every value is measured on test images.
    mixed = records | {run.id: evidence.records[run.id] for run in evidence.cells[-1].runs}
    [plot] = sensitivity(replace(evidence, records=mixed))
    assert "on test images" in plot.alt and level(plot.figure.axes[0], style.STUDENT) == 72


def test_unfinished_values_are_counted() -> None:
    evidence = swept({"at.beta": (1, 10, 100)})
    records = dict(evidence.records)
    [cell] = [cell for cell in evidence.cells if cell.method == "at(beta=10)"]
    for run in cell.runs:
        records[run.id] = ended(run, "diverged", "no")
    [axis] = drawn(replace(evidence, records=records))
    assert means(axis) == [(1, 74), (100, 76)] and texts(axis) == ["1 of 3 not done"]
    assert sensitivity(replace(evidence, records={})) == []


def test_grid_without_a_sweep_has_no_plot() -> None:
    grid = make_grid(methods=(Row(name="kd"),))
    cells = make_cells(grid, ("kd",))
    assert sensitivity(Evidence(grid, cells, {}, lambda run: [])) == []


def test_outlier_is_drawn_at_the_edge_with_its_value() -> None:
    evidence = swept({"at.beta": (1, 10, 100, 1000), "irg.beta": (1, 10, 100, 1000)})
    records = make_records(
        evidence.cells, lambda run: 10.0 if run.method == "at(beta=1000)" else 80.0 + run.seed
    )
    at, _ = drawn(replace(evidence, records=records))
    assert points(at, "v") == [(1000, at.get_ylim()[0])] and texts(at) == ["10.0"]
