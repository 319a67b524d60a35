import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from drawn_evidence import HOSTILE, curve, make_evidence, points, texts
from fake_grids import PAIRS, ended, make_record
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

from kdbench.report.plots import learning_curves, pictures, small_multiples, style
from kdbench.runs.evidence import Evidence, History


def learning(evidence: Evidence, epochs: int = 4) -> Evidence:
    """Let each run rise to its accuracy, by a hundredth of it per epoch."""

    def history(run: str) -> History:
        record = evidence.records.get(run)
        if record is None or record.result is None:
            return []
        end = record.result.test_acc
        return [
            {"epoch": float(e), "test_acc": end * (1 - 0.01 * (epochs - e))}
            for e in range(1, epochs + 1)
        ]

    return replace(evidence, history=history)


def drawn(evidence: Evidence) -> list[Axes]:
    [plot] = learning_curves.learning_curves(evidence)
    return list(plot.figure.axes)


def xy(axis: Axes, colour: str) -> list[list[float]]:
    line = curve(axis, colour)
    assert line is not None
    return [[float(v) for v in np.asarray(data)] for data in (line.get_xdata(), line.get_ydata())]


def test_panel_shows_mean_span_and_baselines() -> None:
    axes = drawn(learning(make_evidence()))
    assert [axis.get_title() for axis in axes] == ["at", "semckd"]
    epochs, means = xy(axes[0], style.CURVE)
    assert epochs == [1, 2, 3, 4]
    assert means == pytest.approx([83.5 * f for f in (0.97, 0.98, 0.99, 1)])
    assert xy(axes[0], style.BASELINE)[1][-1] == pytest.approx(82.5)
    assert xy(axes[0], style.STUDENT)[1][-1] == pytest.approx(80.5)
    [band] = [c for c in axes[0].collections if isinstance(c, PolyCollection)]
    corners = np.asarray(band.get_paths()[0].vertices)
    last = corners[corners[:, 0] == 4][:, 1]
    assert (last.min(), last.max()) == pytest.approx((83.0, 83.9))
    assert axes[0].get_ylim() == axes[1].get_ylim()


def test_one_seed_has_no_span() -> None:
    axes = drawn(learning(make_evidence(seeds=(1,))))
    assert not [c for c in axes[0].collections if isinstance(c, PolyCollection)]


def test_only_finished_runs_are_drawn_and_others_are_noted() -> None:
    evidence = make_evidence()
    records = dict(evidence.records)
    records[evidence.cells[3].runs[0].id] = replace(
        make_record(evidence.cells[3].runs[0], 1.0), status="diverged"
    )
    for run in evidence.cells[4].runs:
        records[run.id] = ended(run, "failed", "no")
    at, semckd = drawn(learning(replace(evidence, records=records)))
    assert xy(at, style.CURVE)[1][-1] == pytest.approx((83.6 + 83.9) / 2)
    assert texts(at) == ["2/3 seeds"] and texts(semckd) == ["failed"]
    assert curve(semckd, style.CURVE) is None and curve(semckd, style.BASELINE) is not None


def test_epochs_without_accuracy_are_left_out() -> None:
    nan = math.nan
    rows: History = [{"epoch": 1.0, "test_acc": nan}, {"epoch": 2.0}, {"epoch": 3.0, "test_acc": 7}]
    axes = drawn(make_evidence(history=lambda run: rows))
    assert xy(axes[0], style.CURVE) == [[3], [7]]
    assert learning_curves.learning_curves(make_evidence(history=lambda run: rows[:2])) == []
    assert learning_curves.learning_curves(make_evidence()) == []
    assert learning_curves.learning_curves(replace(make_evidence(), records={})) == []


def test_curve_that_ends_outside_the_panel_shows_its_value() -> None:
    methods = ("kd", *(f"m{i}" for i in range(8)))
    evidence = make_evidence(
        methods=methods, accuracy=lambda run: 10.0 if run.method == "m3" else 80.0 + run.seed
    )
    axis = drawn(learning(evidence))[3]
    assert axis.get_title() == "m3" and texts(axis) == ["10.0"]
    assert points(axis, "v") == [(4, axis.get_ylim()[0])]


def test_axis_fits_the_second_half_of_training() -> None:
    rows = [{"epoch": float(e), "test_acc": 8.0 * e if e < 10 else 80.0} for e in range(1, 21)]
    low, high = drawn(make_evidence(history=lambda run: rows))[0].get_ylim()
    assert 75 < low < 80 < high < 85


def counted(evidence: Evidence) -> tuple[Evidence, list[str]]:
    read: list[str] = []
    history: Callable[[str], History] = evidence.history
    return replace(evidence, history=lambda run: (read.append(run), history(run))[1]), read  # type: ignore[func-returns-value]


def test_large_grid_is_limited_and_only_drawn_histories_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(style, "PANELS", 4)
    monkeypatch.setattr(learning_curves, "SEEDS", 2)
    pairs = [("big", name) for name in ("s", "t", "u", "v")]
    evidence, read = counted(
        learning(make_evidence(pairs, ("kd", "a1", "a2", "a3"), lambda r: 9.0))
    )
    sheets = learning_curves.learning_curves(evidence)
    assert [plot.name for plot in sheets] == ["curves", "curves-2"]
    assert [plot.title for plot in sheets] == ["Learning curves", "Learning curves (2)"]
    assert [len(plot.figure.axes) for plot in sheets] == [3, 3]
    title = sheets[0].figure.get_suptitle().replace("\n", " ")
    assert "first 2 of 4 pairs" in title and "first 2 of 3 seeds" in title
    # 2 pairs of 5 rows (student, kd and three methods) at 2 seeds.
    assert len(read) == 2 * 5 * 2
    assert "3 methods on 1 pair;" in sheets[0].alt


def test_more_pairs_than_panels_give_one_sheet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "PANELS", 4)
    evidence = learning(make_evidence([("big", f"s{i}") for i in range(5)], accuracy=lambda r: 9.0))
    assert [len(plot.figure.axes) for plot in learning_curves.learning_curves(evidence)] == [4]


def test_pairs_share_a_sheet_if_they_fit() -> None:
    panels = [small_multiples.Panel(pair, str(i)) for pair in "abc" for i in range(10)]
    assert [[p.pair for p in sheet][::10] for sheet in small_multiples.sheets(panels)] == [
        ["a", "b"],
        ["c"],
    ]


def test_each_pair_begins_a_new_row() -> None:
    [plot] = learning_curves.learning_curves(learning(make_evidence(PAIRS)))
    rows = [round(axis.get_position().y0, 3) for axis in plot.figure.axes]
    assert rows[0] == rows[1] > rows[2] == rows[3]
    assert plot.figure.axes[2].get_ylabel() == "big\n→ tiny"


def test_grid_of_only_baselines_has_one_panel() -> None:
    assert [a.get_title() for a in drawn(learning(make_evidence(methods=("kd",))))] == ["kd"]
    assert [a.get_title() for a in drawn(learning(make_evidence(methods=())))] == ["student"]


def test_hostile_names_are_shown_literally() -> None:
    evidence = learning(make_evidence(methods=("kd", *HOSTILE), accuracy=lambda run: 50.0))
    [plot] = learning_curves.learning_curves(evidence)
    assert plot.figure.axes[0].get_title() == "$x_1$"
    assert pictures.svg(plot.figure)
