import math
from dataclasses import replace

import pytest
import scipy.stats
from fake_grids import DIGITS, cell_of, make_cells, make_grid, make_records, typical

from kdbench.grid.grid import TeacherSpec
from kdbench.grid.run import Cell, Term
from kdbench.grid.settings import Dataset
from kdbench.stats.cell_summary import row_label, summaries
from kdbench.stats.cell_table import COLUMNS, cell_table


def test_cell_table_has_a_row_per_method_and_pair() -> None:
    grid = make_grid([("big", "small"), ("big", "tiny")])
    cells = make_cells(grid)
    records = make_records(cells, typical)
    frame = cell_table(grid, cells, records, summaries(cells, records))
    assert list(frame.columns) == list(COLUMNS)
    assert len(frame) == 10
    at = frame[(frame["method"] == "at") & (frame["student"] == "small")].iloc[0]
    accuracies = [83.0, 83.6, 83.9]
    kd = [82.1, 82.7, 82.7]
    assert at["mean"] == pytest.approx(sum(accuracies) / 3)
    assert at["best_mean"] == pytest.approx(sum(accuracies) / 3 + 0.5)
    assert (at["n"], at["expected"], at["status"]) == (3, 3, "done")
    interval = scipy.stats.ttest_1samp(accuracies, 0).confidence_interval(0.95)
    assert (at["mean_lo"], at["mean_hi"]) == pytest.approx((interval.low, interval.high))
    # Of three seeds, the ends of the percentile bootstrap are the lowest and the highest.
    assert (at["boot_lo"], at["boot_hi"]) == pytest.approx((83.0, 83.9))
    assert (at["seeds"], at["accuracies"]) == ("0 1 2", "83 83.6 83.9")
    assert (at["dataset"], at["protocol"]) == ("digits", "demo")
    assert at["diff"] == pytest.approx(sum(accuracies) / 3 - sum(kd) / 3)
    assert at["lo"] < at["diff"] < at["hi"]
    # Two methods are compared with kd, so the smaller p is doubled.
    semckd = frame[(frame["method"] == "semckd") & (frame["student"] == "small")].iloc[0]
    assert sorted([at["p_holm"] / at["p"], semckd["p_holm"] / semckd["p"]])[-1] == pytest.approx(2)
    student = frame[(frame["method"] == "student") & (frame["student"] == "small")].iloc[0]
    assert math.isnan(student["p_holm"]) and student["diff"] < 0
    assert at["recovered_gap"] == pytest.approx(
        (at["mean"] - student["mean"]) / (95 - student["mean"])
    )
    assert at["test_se"] == pytest.approx(math.sqrt(at["mean"] * (100 - at["mean"]) / 400))
    assert at["time_ratio"] == 1.0
    assert student["time_ratio"] == pytest.approx(10 / 12)
    assert at["runs"].split() == [run.id for run in cell_of(cells, "at").runs]


def test_teacher_of_other_data_names_its_data() -> None:
    data = Dataset(name="digits", per_class=30)
    grid = make_grid(dataset=data, teacher=TeacherSpec(dataset=DIGITS))
    cells = make_cells(grid)
    records = make_records(cells, typical)
    frame = cell_table(grid, cells, records, summaries(cells, records))
    assert frame.loc[frame["method"] == "teacher", "dataset"].tolist() == ["digits"]
    assert set(frame.loc[frame["method"] != "teacher", "dataset"]) == {"digits, 30 per class"}


def test_row_label_accepts_a_label_or_terms() -> None:
    grid = make_grid()
    kd = cell_of(make_cells(grid), "kd")
    labelled = replace(kd, method="Hinton")
    assert row_label([kd], "kd") == "kd"
    assert row_label([labelled], "kd") == "Hinton"
    assert row_label([labelled, replace(kd, method="again")], "kd") is None
    assert row_label([kd], "at") is None
    mine = replace(kd.runs[0], terms=(Term("/home/me/mine.py", 1.0),))
    assert row_label([Cell("mine.py", "b", "s", (mine,))], "./mine.py") == "mine.py"
