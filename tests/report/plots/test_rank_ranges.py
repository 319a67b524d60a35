import numpy as np
from drawn_evidence import HOSTILE, make_evidence, points, ticks
from fake_grids import PAIRS
from matplotlib.figure import Figure

from kdbench.report.plots import pictures, style
from kdbench.runs.evidence import Evidence
from kdbench.stats.aggregate import aggregate


def drawn(evidence: Evidence, title: str = "T") -> Figure:
    return pictures.rank_ranges(title, aggregate(evidence).decision)


def noisy(evidence_seed: int) -> Evidence:
    draw = np.random.default_rng(evidence_seed)
    methods = ("kd", "at", "semckd", "sp", "cc")
    return make_evidence(PAIRS, methods, lambda run: 80.0 + float(draw.normal(0, 2)))


def test_ranges_are_those_of_the_decision_and_the_highest_mean_is_on_top() -> None:
    evidence = noisy(0)
    [axis] = drawn(evidence).axes
    over = aggregate(evidence).decision.over
    assert over.standings
    order = sorted(over.standings, key=lambda row: -over.means[row])
    # None is shown to be better than the student.
    assert ticks(axis) == [row if row == "student" else f"{row} ?" for row in order]
    assert points(axis) == [(i + 1, i) for i in range(len(order))]
    segments = [np.asarray(s).tolist() for s in axis.collections[1].get_segments()]  # type: ignore[attr-defined]
    placed = [over.standings[row] for row in order]
    assert segments == [[[one.rank_low, y], [one.rank_high, y]] for y, one in enumerate(placed)]
    bottom, top = axis.get_ylim()
    assert bottom > top


def test_methods_that_may_be_the_best_are_marked() -> None:
    [axis] = drawn(make_evidence(PAIRS)).axes
    assert ticks(axis) == ["semckd ●", "at", "kd", "student"]
    assert axis.collections[1].get_segments()[0].tolist() == [[1, 0], [1, 0]]  # type: ignore[attr-defined]


def test_names_are_shown_literally_and_methods_are_limited() -> None:
    figure = drawn(make_evidence(methods=("kd", *HOSTILE), accuracy=lambda r: 80.0 + r.seed), "$")
    assert {"$x_1$ ?", "_a_ ?"} <= set(ticks(figure.axes[0]))
    assert pictures.svg(figure)
    names = ("kd", *(f"m{i}" for i in range(style.ROWS)))
    many = drawn(make_evidence(methods=names, accuracy=lambda run: 70.0 + run.seed))
    assert len(ticks(many.axes[0])) == style.ROWS
    assert f"first 120 of {style.ROWS + 2} methods" in many.get_suptitle().replace("\n", " ")
