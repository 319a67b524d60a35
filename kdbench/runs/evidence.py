"""What a leaderboard, a plot or a page is made from: a grid, its cells, and what its runs left."""

import csv
import marshal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kdbench.grid.grid import Grid
from kdbench.grid.run import Cell, Run
from kdbench.runs import records
from kdbench.runs.records import Record

History = Sequence[Mapping[str, float]]
"""A row per epoch: ``epoch``, ``train_loss``, ``train_acc``, ``test_loss``, ``test_acc``, ...;
six significant digits, no timings."""

PRIVATE = ("host", "started", "ended")
"""Of a record's environment: says nothing of a number, and may be nobody's business."""
TIMINGS = frozenset({"seconds"})


@dataclass(frozen=True)
class Evidence:
    """All that a report may look at; everything it shows is a pure function of this.

    It may be published: no host, time or traceback of a run is in it.

    Attributes:
        grid, cells: what was asked for.
        records: run id -> how that run ended; runs without a record are missing. Those that were
            trained with the same may share one environment.
        history: run id -> its learning curve, read when asked for; empty where there is none.
    """

    grid: Grid
    cells: Sequence[Cell]
    records: Mapping[str, Record]
    history: Callable[[str], History]


def gather(grid: Grid, cells: Sequence[Cell], runs: Path) -> Evidence:
    """The evidence that lies in a folder of runs."""
    ids = (run.id for cell in cells for run in cell.runs)
    found = records.load(runs, ids)
    shared: dict[bytes, dict[str, Any]] = {}
    for key, record in found.items():
        # In place: it was just read, and there may be very many.
        environment = record.environment
        for private in PRIVATE:
            environment.pop(private, None)
        # Most runs were trained with the same. Equal bytes are equal in type, too: 1 is not True.
        environment = shared.setdefault(marshal.dumps(environment, 2), environment)
        object.__setattr__(record, "environment", environment)
        found[key] = public(record)
    return Evidence(grid, cells, found, lambda run_id: _history(runs, run_id))


def any_history(held: Sequence[Callable[[str], History]]) -> Callable[[str], History]:
    """The first curve that one of several holders has of a run; empty where none has one."""

    def history(run_id: str) -> History:
        return next((curve for one in held if (curve := one(run_id))), [])

    return history


def public(record: Record) -> Record:
    """A record without what is private."""
    environment = record.environment
    if not record.traceback and environment.keys().isdisjoint(PRIVATE):
        return record
    kept = {key: value for key, value in environment.items() if key not in PRIVATE}
    return Record(**(vars(record) | {"environment": kept, "traceback": ""}))


def _history(runs: Path, run_id: str) -> History:
    # Without a Path: there may be very many, and most of those asked for may not be there.
    try:
        with open(f"{runs}/{run_id}/history.csv", newline="", encoding="utf-8") as file:  # noqa: PTH123
            return [
                {k: float(f"{float(v):.6g}") for k, v in row.items() if v and k not in TIMINGS}
                for row in csv.DictReader(file)
            ]
    except FileNotFoundError:
        return []


def publishable_path(root: str) -> str:
    """Where data lies, as may be told: inside the user's folder, or no more than its name."""
    path = Path(root)
    return Path(root).resolve().name if path.is_absolute() or ".." in path.parts else root


def without_local_paths(run: Run) -> Run:
    """A run that says nothing of its machine's folders; its id is the same."""
    dataset = run.dataset
    if dataset.root:
        dataset = dataset.model_copy(update={"root": publishable_path(dataset.root)})
    terms = tuple(replace(term, path=None) for term in run.terms)
    return replace(run, dataset=dataset, terms=terms)
