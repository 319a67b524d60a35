"""From a two-method grid on synthetic data to its leaderboard, in seconds."""

from pathlib import Path

import pandas as pd
from click.testing import CliRunner

from kdbench.cli import main

GRID = """
name: line
title: The whole line
dataset: {name: synthetic, size: 8}
protocol: {preset: demo, epochs: 2}
seeds: [0, 1]
pairs: [r8w4 -> r8w3]
methods: [kd, at]
executor: {kind: debug}
"""


def test_from_grid_to_leaderboard(tmp_path: Path) -> None:
    grid = tmp_path / "line.yaml"
    grid.write_text(GRID)
    folders = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    done = CliRunner().invoke(main, ["run", "--grid", str(grid), *folders])
    assert done.exit_code == 0, done.output
    assert "line: 7 runs, 0 recorded, 7 to train" in done.output
    table = pd.read_csv(tmp_path / "results" / "line" / "leaderboard.csv")
    assert sorted(table["method"]) == ["at", "kd", "student", "teacher"]
    assert set(table["status"]) == {"done"}
    assert (table.loc[table["method"] != "teacher", "n"] == 2).all()
    page = (tmp_path / "results" / "line" / "leaderboard.md").read_text()
    assert page.startswith("# The whole line")
    first = (tmp_path / "results" / "line" / "leaderboard.csv").read_bytes()
    again = CliRunner().invoke(main, ["report", "--grid", str(grid), *folders])
    assert again.exit_code == 0, again.output
    assert (tmp_path / "results" / "line" / "leaderboard.csv").read_bytes() == first
    assert (tmp_path / "results" / "line" / "leaderboard.md").read_text() == page
