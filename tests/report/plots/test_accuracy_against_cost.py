import math
from dataclasses import replace
from statistics import median

import numpy as np
import pytest
from drawn_evidence import HOSTILE, cost_of, make_evidence, points, texts
from fake_grids import make_record, typical
from hypothesis import given
from hypothesis import strategies as st

from kdbench.report.plots import pictures
from kdbench.report.plots.accuracy_against_cost import Point, front
from kdbench.report.plots.style import CURVE
from kdbench.runs.evidence import Evidence
from kdbench.stats.aggregate import aggregate

SECONDS = {"student": 4.0, "kd": 8.0, "at": 18.0, "semckd": 6.0, "teacher": 9.0}
POINTS = st.lists(
    st.builds(Point, st.text(max_size=3), st.floats(0.1, 9), st.floats(0, 100)),
    max_size=15,
)


def costly(evidence: Evidence) -> Evidence:
    """Give each method its own time, which includes two seconds of the teacher."""
    records = {
        run.id: make_record(run, typical(run), seconds=SECONDS[run.method])
        for cell in evidence.cells
        for run in cell.runs
    }
    return replace(evidence, records=records)


@given(POINTS)
def test_front_contains_the_points_that_no_other_point_beats(every: list[Point]) -> None:
    best = front(every)

    def beaten(point: Point) -> bool:
        return any(
            o.time <= point.time and o.accuracy >= point.accuracy
            and (o.time, o.accuracy) != (point.time, point.accuracy) for o in every
        )  # fmt: skip

    assert not any(beaten(point) for point in best)
    coordinates = {(point.time, point.accuracy) for point in best}
    assert coordinates == {(p.time, p.accuracy) for p in every if not beaten(p)}
    assert best == sorted(best, key=lambda p: p.time) and len(best) == len(coordinates)


def test_methods_are_drawn_at_their_time_and_mean_with_their_names() -> None:
    evidence = costly(make_evidence())
    figure = cost_of(evidence)
    [axis] = figure.axes
    [student], [kd] = points(axis, "s"), points(axis, "D")
    assert student == pytest.approx((0.4, 80.5)) and kd == pytest.approx((1, 82.5))
    fill = {
        round(float(x), 3): line.get_markerfacecolor()
        for line in axis.lines
        if line.get_marker() in ("o", "s", "D")
        for x in np.asarray(line.get_xdata())
    }
    # Only semckd may be the best, although the student is on the front, too.
    assert fill == {0.4: "white", 0.8: CURVE, 1: "white", 2: "white"}
    contrasts = aggregate(evidence).decision.pairs["big → small"].contrasts
    widths = [contrasts[row, "kd"].high - contrasts[row, "kd"].low
              for row in ("student", "at", "semckd")]  # fmt: skip
    [bar] = axis.containers
    [segment] = bar.lines[2][0].get_segments()  # type: ignore[attr-defined]
    assert segment[1][1] - segment[0][1] == pytest.approx(median(widths))
    at = next(text for text in axis.texts if text.get_text() == "at")
    assert at.get_position() == (2, 83.5)
    assert set(texts(axis)) >= {"student", "kd", "semckd"}
    steps = next(line for line in axis.lines if line.get_drawstyle() == "steps-post")
    assert np.asarray(steps.get_ydata())[:2] == pytest.approx([80.5, 84.5])
    assert axis.get_xscale() == "log"


def test_outlier_is_drawn_at_the_edge_and_missing_methods_are_counted() -> None:
    methods = ("kd", *(f"m{i}" for i in range(8)))
    evidence = make_evidence(
        methods=methods, accuracy=lambda run: 10.0 if run.method == "m3" else 80.0 + run.seed
    )
    records = dict(evidence.records)
    for run in evidence.cells[-1].runs:
        del records[run.id]
    [axis] = cost_of(replace(evidence, records=records)).axes
    [(x, y)] = points(axis, "v")
    assert x == pytest.approx(1) and y > 70
    assert "m3 10.0" in texts(axis) and "1 not done" in texts(axis)


def test_one_seed_has_no_error_bar_and_names_are_shown_literally() -> None:
    evidence = make_evidence(
        methods=("kd", *HOSTILE), seeds=(0,), accuracy=lambda run: 80.0 + len(run.method) % 7
    )
    figure = cost_of(evidence, "$T$")
    assert not figure.axes[0].containers
    assert {"$x_1$", "_a_", "${\\"} <= set(texts(figure.axes[0]))
    assert pictures.svg(figure)


def test_pair_without_times_has_an_empty_panel() -> None:
    statistics = aggregate(make_evidence([("big", "small"), ("big", "tiny")]))
    frame = statistics.frame
    frame.loc[frame["pair"] == "big → tiny", "time_ratio"] = math.nan
    first, second = pictures.trade_off("T", frame, statistics.decision).axes
    assert points(first) and texts(second) == ["no results"]
