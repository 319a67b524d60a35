"""The committed leaderboards are complete, and no method collapses."""

from pathlib import Path

import pandas as pd
import pytest

from kdbench.grid.expand import expand
from kdbench.grid.grid import Grid
from kdbench.grid.parsing import load
from kdbench.registry import lookup

ROOT = Path(__file__).parents[2]
GRIDS = ("demo", "quick")
MARGIN = 3.0
"""Largest difference in points below the student trained alone."""


@pytest.fixture(scope="module", params=GRIDS)
def grid(request: pytest.FixtureRequest) -> Grid:
    return load(ROOT / "experiments" / f"{request.param}.yaml")


@pytest.fixture(scope="module")
def table(grid: Grid) -> pd.DataFrame:
    return pd.read_csv(ROOT / "results" / grid.name / "leaderboard.csv")


def test_every_method_has_a_row(grid: Grid, table: pd.DataFrame) -> None:
    assert set(table["method"]) == {cell.method for cell in expand(grid).cells}
    if grid.name == "table1-demo":
        assert set(lookup.names()) <= set(table["method"])


def test_committed_runs_are_the_runs_of_the_grid(grid: Grid, table: pd.DataFrame) -> None:
    """Require new results after a change of a grid or preset."""
    expected = {run.id for run in expand(grid).runs}
    assert {run for runs in table["runs"] for run in runs.split()} == expected


def test_every_run_is_done_or_skipped_for_a_reason(table: pd.DataFrame) -> None:
    assert set(table["status"]) <= {"done", "skipped"}
    skipped = set(table.loc[table["status"] == "skipped", "method"])
    assert skipped <= {"fsp", "kdsvd"}  # both need equal channels


def test_no_method_collapses(table: pd.DataFrame) -> None:
    for pair, rows in table[table["status"] == "done"].groupby(["teacher", "student"]):
        means = rows.set_index("method")["mean"]
        low = means[means < means["student"] - MARGIN]
        assert low.empty, f"{pair}: {low.to_dict()}, student {means['student']:.2f}"
        assert means["kd"] > means["student"]
        assert means["teacher"] > means["kd"]
