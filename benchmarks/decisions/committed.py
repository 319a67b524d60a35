"""How the rows of committed results vary over seeds, for the scenario *records*."""

from pathlib import Path

import numpy as np

from kdbench.runs import archive
from kdbench.stats.cell_summary import summaries

Residuals = np.ndarray[tuple[int, int], np.dtype[np.float64]]

ROOT = Path(__file__).parents[2]
GRIDS = ("table1-demo", "table1-quick")
SEEDS = (0, 1, 2)
"""Seeds that are read: later ones would change the scenario."""


def read(results: Path = ROOT / "results") -> tuple[list[Residuals], list[str]]:
    """Return the residuals [R, 3] of each committed pair, and the grids that are absent.

    A residual is an accuracy less the means of its row and of its seed. The residuals of a pair are
    divided by their standard deviation, with (R - 1)(S - 1) degrees of freedom.
    """
    residuals, absent = [], []
    for name in GRIDS:
        path = results / name / archive.NAME
        if path.exists():
            residuals.extend(_pairs(path))
        else:
            absent.append(name)
    return residuals, absent


def _pairs(path: Path) -> list[Residuals]:
    evidence = archive.load(path)
    pairs = []
    for cells in summaries(evidence.cells, evidence.records).values():
        rows = [cell.accuracies for name, cell in cells.items() if name != "teacher"]
        complete = [[row[seed] for seed in SEEDS] for row in rows if row.keys() >= set(SEEDS)]
        pairs.append(_residuals(np.array(complete)))
    return pairs


def _residuals(accuracies: Residuals) -> Residuals:
    rows, seeds = accuracies.shape
    left = accuracies - accuracies.mean(1, keepdims=True)
    left = left - left.mean(0)
    return np.asarray(left / np.sqrt((left**2).sum() / ((rows - 1) * (seeds - 1))))
