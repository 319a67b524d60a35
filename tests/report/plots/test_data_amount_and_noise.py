from dataclasses import replace

import numpy as np
import pytest
from drawn_evidence import HOSTILE, curve, make_evidence, points, texts, ticks
from fake_grids import PAIRS

from kdbench.grid.settings import Dataset
from kdbench.report.plots import pictures, style
from kdbench.report.plots.data_amount_and_noise import Series


def few(*counts: int, methods: tuple[str, ...] = ("kd", "at")) -> Series:
    """Return grids on subsets; accuracy: number of images + seed, 5 more for kd, 10 for at."""
    more = {"student": 0, "kd": 5, "at": 10}
    return [
        (
            float(count),
            make_evidence(
                PAIRS, methods, lambda run, n=count: n + run.seed + more.get(run.method, 20),  # type: ignore[misc]
                dataset=Dataset(name="digits", per_class=count),
            ),
        )
        for count in counts
    ]  # fmt: skip


def test_few_shot_plot_has_a_panel_per_method_and_pair() -> None:
    [plot] = pictures.few_shot("T", few(40, 10, 20))
    first, second = plot.figure.axes
    assert (plot.name, first.get_title(), second.get_ylabel()) == ("few-shot", "at", "big\n→ tiny")
    line = curve(first, style.CURVE)
    assert line is not None
    assert np.asarray(line.get_xydata()).tolist() == [[10, 21], [20, 31], [40, 51]]
    assert sorted(points(first))[:3] == [(10, 20), (10, 21), (10, 22)]
    assert first.get_xscale() == "log" and ticks(first, "x") == ["10", "20", "40"]
    base, student = curve(first, style.BASELINE), curve(first, style.STUDENT)
    assert base is not None and student is not None
    assert list(np.asarray(base.get_ydata())) == [16, 26, 46]
    assert list(np.asarray(student.get_ydata())) == [11, 21, 41]


def test_label_noise_has_a_linear_axis_that_may_begin_at_0() -> None:
    series = [(x, evidence) for x, (_, evidence) in zip((0, 0.5), few(10, 20), strict=True)]
    [plot] = pictures.label_noise("T", series)
    axis = plot.figure.axes[0]
    assert plot.name == "label-noise" and axis.get_xscale() == "linear"
    assert ticks(axis, "x") == ["0", "0.5"] and "wrong training labels" in plot.alt


def test_method_missing_in_one_grid_keeps_its_other_points() -> None:
    series = [*few(10, methods=("kd", "at", "sp")), *few(20, 40)]
    at, sp = pictures.few_shot("T", series)[0].figure.axes[:2]
    assert len(points(at)) == 9 and len(points(sp)) == 3


def test_method_without_results_has_a_note() -> None:
    cut = []
    for x, evidence in few(10, 20, methods=("kd", "at", "sp")):
        gone = {run.id for c in evidence.cells if c.method == "at" for run in c.runs}
        records = {key: record for key, record in evidence.records.items() if key not in gone}
        cut.append((x, replace(evidence, records=records)))
    at, sp = pictures.few_shot("T", cut)[0].figure.axes[:2]
    assert texts(at) == ["no results"] and not texts(sp)
    assert pictures.few_shot("T", [(x, replace(e, records={})) for x, e in cut]) == []


def test_one_grid_gives_no_plot() -> None:
    assert pictures.few_shot("T", []) == pictures.few_shot("T", few(10)) == []


def test_x_values_must_differ_and_be_positive_on_a_log_axis() -> None:
    [(_, evidence)] = few(10)
    with pytest.raises(ValueError, match="expected different numbers above 0, got 0, 5"):
        pictures.few_shot("T", [(0, evidence), (5, evidence)])
    with pytest.raises(ValueError, match="share of wrong training labels: expected different"):
        pictures.label_noise("T", [(0.1, evidence), (0.1, evidence)])


def test_hostile_names_are_shown_literally() -> None:
    [plot] = pictures.few_shot("$" + HOSTILE[2], few(10, 20, methods=("kd", *HOSTILE)))
    assert plot.figure.axes[0].get_title() == "$x_1$" and not texts(plot.figure.axes[0])
    assert pictures.svg(plot.figure)
