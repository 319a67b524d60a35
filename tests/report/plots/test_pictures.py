import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from drawn_evidence import HOSTILE, make_evidence, texts, ticks
from drawn_evidence import points as marks
from fake_grids import ended, make_cells, make_grid, make_records, typical
from matplotlib.figure import Figure

from kdbench.grid.run import Cell, Run
from kdbench.report.plots import accuracy_per_seed, pictures, style
from kdbench.runs.evidence import Evidence
from kdbench.stats.aggregate import aggregate


def drawn(**changes: Any) -> Figure:
    grid = make_grid(**changes)
    cells = make_cells(grid)
    return pictures.accuracy("T", cells, make_records(cells, typical))


def points(figure: Figure) -> dict[float, list[float]]:
    """Return the seeds' accuracies in the first panel, by height."""
    accuracies: dict[float, list[float]] = {}
    for line in figure.axes[0].lines:
        if line.get_marker() == "o":
            for x, y in np.asarray(line.get_xydata(), float).tolist():
                accuracies.setdefault(y, []).append(x)
    return accuracies


def test_every_seed_is_a_point_and_every_pair_a_panel() -> None:
    figure = drawn(pairs=[("big", "small"), ("big", "tiny")])
    assert [axis.get_title() for axis in figure.axes] == ["big → small", "big → tiny"]
    assert [len(values) for values in points(figure).values()] == [3, 3, 3, 3]
    assert points(figure)[2] == pytest.approx([83.0, 83.6, 83.9])
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["student", "kd", "at", "semckd"]


def test_repeated_pair_has_two_panels() -> None:
    figure = drawn(pairs=[("big", "small"), ("big", "small")])
    assert [axis.get_title() for axis in figure.axes] == ["big → small", "big → small (2)"]


def test_teacher_and_student_are_lines() -> None:
    grid = make_grid()
    cells = make_cells(grid)
    records = make_records(cells, lambda run: 90.0 + run.seed)
    figure = pictures.accuracy("T", cells, records)
    lines = [
        (line.get_linestyle(), np.asarray(line.get_xdata(), float)[0])
        for line in figure.axes[0].lines
        if line.get_linestyle() in ("-", "--") and line.get_zorder() == 1
    ]
    assert lines == [("--", 91.0), ("-", 95.0)]


def test_teacher_outside_the_panel_is_a_text() -> None:
    grid = make_grid()
    cells = make_cells(grid)
    figure = pictures.accuracy("T", cells, make_records(cells, lambda run: 40 + run.seed))
    assert [text.get_text() for text in figure.axes[0].texts] == ["teacher 95.00 →"]


def test_cell_without_a_result_shows_its_status() -> None:
    grid = make_grid()
    cells = make_cells(grid)
    records = make_records(cells, typical)
    for run in cells[3].runs:
        records[run.id] = ended(run, "skipped", "no")
    figure = pictures.accuracy("T", cells, records)
    assert figure.axes[0].texts[0].get_text() == "skipped"


def test_same_records_give_same_bytes() -> None:
    first, second = drawn(), drawn()
    assert pictures.svg(first) == pictures.svg(second)
    assert pictures.png(first) == pictures.png(second)
    assert pictures.svg(first).startswith(b"<?xml")
    assert b"<dc:date>" not in pictures.svg(first)
    assert pictures.png(first).startswith(b"\x89PNG")


def test_figure_is_drawn_without_results() -> None:
    grid = make_grid()
    assert pictures.svg(pictures.accuracy("T", make_cells(grid), {}))
    assert pictures.svg(pictures.accuracy("T", [], {}))
    only = [Cell("teacher", "big", "small", ())]
    assert pictures.svg(pictures.accuracy("T", only, {}))


def test_dollar_signs_are_not_mathematics() -> None:
    grid = make_grid()
    cells = make_cells(grid, ("kd", "a$_x$"))
    records = make_records(cells[:3], typical)
    assert pictures.svg(pictures.accuracy("$1 and $x_", cells, records))


def test_pairs_beyond_the_limit_are_left_out_with_a_note(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(style, "PANELS", 2)
    figure = drawn(pairs=[("big", f"s{i}") for i in range(4)])
    assert len([axis for axis in figure.axes if axis.axison]) == 2
    assert "first 2 of 4 pairs" in figure.get_suptitle()


def every(evidence: Evidence) -> list[pictures.Plot]:
    return list(pictures.figures(aggregate(evidence)))


def learning(run: str) -> list[dict[str, float]]:
    return [{"epoch": 1.0, "test_acc": 50.0}, {"epoch": 2.0, "test_acc": 80.0}]


def test_figures_without_content_are_left_out() -> None:
    evidence = make_evidence(history=learning)
    names = [plot.name for plot in every(evidence)]
    assert names == ["accuracy", "differences", "cost", "ranks", "curves"]
    assert [plot.name for plot in every(make_evidence())] == names[:4]
    # With one seed there is no rank.
    assert [plot.name for plot in every(make_evidence(seeds=(0,)))] == names[:3]
    assert [plot.name for plot in every(replace(evidence, records={}))] == ["accuracy"]
    # No baseline to compare with.
    alone = [plot.name for plot in every(make_evidence(methods=("at",)))]
    assert alone == ["accuracy", "ranks"]


def test_alternative_texts_are_one_sentence_without_external_names() -> None:
    methods = ("kd", "zzz$<b>")
    evidence = make_evidence(
        methods=methods, accuracy=lambda run: 80.0, history=learning, title="zzz"
    )
    for plot in every(evidence):
        assert "zzz" not in plot.alt + plot.title + plot.name
        assert re.fullmatch(r"[A-Z][^.\n]*\.", plot.alt) and len(plot.alt) < 250


def test_same_records_give_same_bytes_in_every_figure() -> None:
    evidence = make_evidence(history=learning)
    backwards = replace(evidence, records=dict(list(evidence.records.items())[::-1]))
    files = pictures.files(map(pictures.picture, every(evidence)))
    assert files == pictures.files(map(pictures.picture, every(backwards)))
    assert set(files) == {
        f"plots/{name}.{kind}"
        for name in ("accuracy", "differences", "cost", "ranks", "curves")
        for kind in ("svg", "png")
    }


def test_hostile_names_are_drawn_literally_in_every_figure() -> None:
    evidence = make_evidence(
        [("$t_$" * 20, "<s>&"), ("big", "方法")],
        ("kd", *HOSTILE),
        accuracy=lambda run: 80.0 + run.seed,
        history=learning,
        title="${<script>--> " * 30,
    )
    drawn = every(evidence)
    assert len(drawn) == 5
    assert ticks(drawn[0].figure.axes[0])[2:4] == ["$x_1$", "_a_"]
    for plot in drawn:
        drawing = pictures.svg(plot.figure)
        ET.fromstring(drawing)
        assert b"<script" not in drawing
        wide, high = plot.figure.get_size_inches()
        assert wide < 16 and high < 16
        # All text is inside the figure.
        with style.paper():
            plot.figure.draw_without_rendering()
            box = plot.figure.get_tightbbox()
        assert box.x0 > -0.1 and box.x1 < wide + 0.1 and box.y0 > -0.1 and box.y1 < high + 0.1


def test_outlying_seed_is_a_triangle_and_outlying_mean_a_number() -> None:
    def outlying(run: Run) -> float:
        return 10.0 if run.method == "at" else 80.0 + run.seed

    figure = drawn_with(outlying)
    [axis] = figure.axes
    low, _ = axis.get_xlim()
    assert low > 70 and texts(axis)[-1] == "mean 10.00"
    assert marks(axis, "<") == [(low, 2)] and 2 not in points(figure)


def drawn_with(accuracy: Callable[[Run], float]) -> Figure:
    evidence = make_evidence(accuracy=accuracy)
    return pictures.accuracy("T", evidence.cells, evidence.records)


def test_seeds_and_methods_beyond_the_limit_are_left_out_with_a_note(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accuracy_per_seed, "MOST", 2)
    monkeypatch.setattr(style, "ROWS", 3)
    figure = drawn()
    assert [len(values) for values in points(figure).values()] == [2, 2, 2]
    title = figure.get_suptitle().replace("\n", " ")
    assert "(first 3 of 4 methods)" in title and "(first 2 of 3 seeds)" in title


def test_nan_accuracies_are_not_drawn() -> None:
    figure = drawn_with(lambda run: float("nan"))
    assert not points(figure) and pictures.svg(figure)
    partial = drawn_with(lambda run: float("nan") if run.seed else 80.0)
    assert [len(values) for values in points(partial).values()] == [1, 1, 1, 1]
