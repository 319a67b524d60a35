import math
from dataclasses import replace

import pandas as pd
import pytest
import scipy.stats
from fake_grids import (
    DIGITS,
    aggregate_of,
    cell_of,
    make_cells,
    make_grid,
    make_records,
    typical,
)

from kdbench.grid.grid import TeacherSpec
from kdbench.grid.run import Cell, Term
from kdbench.grid.settings import Dataset
from kdbench.stats.cell_summary import row_label
from kdbench.stats.cell_table import COLUMNS


def test_cell_table_has_a_row_per_method_and_pair() -> None:
    grid = make_grid([("big", "small"), ("big", "tiny")])
    cells = make_cells(grid)
    records = make_records(cells, typical)
    aggregate = aggregate_of(grid, cells, records)
    frame = aggregate.frame
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
    assert (at["seeds"], at["accuracies"]) == ("0 1 2", "83 83.6 83.9")
    assert (at["dataset"], at["protocol"]) == ("digits", "demo")
    assert at["diff"] == pytest.approx(sum(accuracies) / 3 - sum(kd) / 3)
    on_pair = aggregate.decision.pairs["big → small"]
    contrast = on_pair.contrasts["at", "kd"]
    numbers = [at[name] for name in ("lo", "hi", "p", "p_adj", "df", "se", "diff_sd", "diff_n")]
    assert numbers == [contrast.low, contrast.high, contrast.p, contrast.p_adj, contrast.df,
                       contrast.se, contrast.sd, 3]  # fmt: skip
    # A row is compared with the three others.
    assert at["p_adj"] == pytest.approx(min(1, 3 * at["p"]))
    student = frame[(frame["method"] == "student") & (frame["student"] == "small")].iloc[0]
    assert student["diff"] < 0 and pd.isna(student["state"])
    assert on_pair.standings
    for row in frame[frame["pair"] == "big → small"].to_dict("records")[1:]:
        placed = on_pair.standings[row["method"]]
        assert (row["rank_lo"], row["rank_hi"]) == (placed.rank_low, placed.rank_high)
        assert row["behind"] == placed.behind and row["noisy"] is False
    states = aggregate.decision.on_pair["big → small"].state
    assert {row["method"]: row["state"] for row in frame.to_dict("records")[2:5]} == states
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
    frame = aggregate_of(grid, cells, records).frame
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
