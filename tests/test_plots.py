from typing import Any

import numpy as np
import pytest
from fakes import ended, make_cells, make_grid, make_records, typical
from matplotlib.figure import Figure

from kdbench import plots
from kdbench.plots import style
from kdbench.run import Cell


def drawn(**changes: Any) -> Figure:
    grid = make_grid(**changes)
    cells = make_cells(grid)
    return plots.accuracy("T", cells, make_records(cells, typical))


def points(figure: Figure) -> dict[float, list[float]]:
    """Of the first panel: height -> the seeds' accuracies."""
    found: dict[float, list[float]] = {}
    for line in figure.axes[0].lines:
        if line.get_marker() == "o":
            for x, y in np.asarray(line.get_xydata(), float).tolist():
                found.setdefault(y, []).append(x)
    return found


def test_every_seed_is_a_point_and_every_pair_a_panel() -> None:
    figure = drawn(pairs=[("big", "small"), ("big", "tiny")])
    assert [axis.get_title() for axis in figure.axes] == ["big → small", "big → tiny"]
    assert [len(values) for values in points(figure).values()] == [3, 3, 3, 3]
    assert points(figure)[2] == pytest.approx([83.0, 83.6, 83.9])
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["student", "kd", "at", "semckd"]


def test_a_pair_that_comes_twice_has_two_panels() -> None:
    figure = drawn(pairs=[("big", "small"), ("big", "small")])
    assert [axis.get_title() for axis in figure.axes] == ["big → small", "big → small (2)"]


def test_teacher_and_student_are_lines() -> None:
    grid = make_grid()
    cells = make_cells(grid)
    records = make_records(cells, lambda run: 90.0 + run.seed)
    figure = plots.accuracy("T", cells, records)
    lines = [
        (line.get_linestyle(), np.asarray(line.get_xdata(), float)[0])
        for line in figure.axes[0].lines
        if line.get_linestyle() in ("-", "--") and line.get_zorder() == 1
    ]
    assert lines == [("--", 91.0), ("-", 95.0)]


def test_a_teacher_far_away_is_a_word() -> None:
    grid = make_grid()
    cells = make_cells(grid)
    figure = plots.accuracy("T", cells, make_records(cells, lambda run: 40 + run.seed))
    assert [text.get_text() for text in figure.axes[0].texts] == ["teacher 95.00 →"]


def test_a_cell_without_result_says_why() -> None:
    grid = make_grid()
    cells = make_cells(grid)
    records = make_records(cells, typical)
    for run in cells[3].runs:
        records[run.id] = ended(run, "skipped", "no")
    figure = plots.accuracy("T", cells, records)
    assert figure.axes[0].texts[0].get_text() == "skipped"


def test_the_same_records_give_the_same_bytes() -> None:
    first, second = drawn(), drawn()
    assert plots.svg(first) == plots.svg(second)
    assert plots.png(first) == plots.png(second)
    assert plots.svg(first).startswith(b"<?xml")
    assert b"<dc:date>" not in plots.svg(first)
    assert plots.png(first).startswith(b"\x89PNG")


def test_nothing_to_draw_is_still_a_figure() -> None:
    grid = make_grid()
    assert plots.svg(plots.accuracy("T", make_cells(grid), {}))
    assert plots.svg(plots.accuracy("T", [], {}))
    only = [Cell("teacher", "big", "small", ())]
    assert plots.svg(plots.accuracy("T", only, {}))


def test_dollars_are_no_mathematics() -> None:
    grid = make_grid()
    cells = make_cells(grid, ("kd", "a$_x$"))
    records = make_records(cells[:3], typical)
    assert plots.svg(plots.accuracy("$1 and $x_", cells, records))


def test_more_pairs_than_can_be_read_are_left_out_and_said_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(style, "PANELS", 2)
    figure = drawn(pairs=[("big", f"s{i}") for i in range(4)])
    assert len([axis for axis in figure.axes if axis.axison]) == 2
    assert "first 2 of 4 pairs" in figure.get_suptitle()
