"""What a leaderboard, a plot or a page is made from: a grid, its cells, and what its runs left."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdbench import records
from kdbench.grid import Grid
from kdbench.records import Record
from kdbench.run import Cell

History = Sequence[Mapping[str, float]]
"""A row per epoch: ``epoch``, ``train_loss``, ``train_acc``, ``test_loss``, ``test_acc``, ..."""


@dataclass(frozen=True)
class Evidence:
    """All that a report may look at; everything it shows is a pure function of this.

    Attributes:
        grid, cells: what was asked for.
        records: run id -> how that run ended; runs without a record are missing.
        history: run id -> its learning curve, read when asked for; empty where there is none.
    """

    grid: Grid
    cells: Sequence[Cell]
    records: Mapping[str, Record]
    history: Callable[[str], History]


def gather(grid: Grid, cells: Sequence[Cell], runs: Path) -> Evidence:
    """The evidence that lies in a folder of runs."""
    ids = (run.id for cell in cells for run in cell.runs)
    return Evidence(grid, cells, records.load(runs, ids), lambda run_id: _history(runs, run_id))


def _history(runs: Path, run_id: str) -> History:
    path = records.folder(runs, run_id) / "history.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    except FileNotFoundError:
        return []
