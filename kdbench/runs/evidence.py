"""The evidence of a report: a grid, its cells, and the records and learning curves of its runs."""

import contextlib
import marshal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from kdbench.errors import UserError
from kdbench.grid.grid import Grid
from kdbench.grid.run import Cell, Run
from kdbench.registry import lookup
from kdbench.runs import history, records
from kdbench.runs.records import Record
from kdbench.runs.trained_teachers import leave_out_foreign_accuracies

History = Sequence[Mapping[str, float]]
"""A row per epoch: ``epoch``, ``train_loss``, ``train_acc``, ``test_loss``, ``test_acc``, ...;
six significant digits, no timings."""

PRIVATE = ("host", "started", "ended")
"""Keys of a record's environment that decide no number and may be private."""
ELSEWHERE = "/PATH"
"""Placeholder in published commands for the folder of a plugin; readers replace it."""
TIMINGS = frozenset({"seconds"})


class PluginFacts(NamedTuple):
    """Facts about a method outside kdbench, whose file may change or be on another machine.

    Attributes:
        family: what it matches.
        doc: first line of its file.
        digests: name of its file, and of the files that it imports from the same folder or package
            -> sha256; empty in records of older versions of kdbench.
    """

    family: str
    doc: str
    digests: Mapping[str, str] = {}


@dataclass(frozen=True)
class Evidence:
    """The only input of a report: everything in a report is a pure function of this.

    Evidence may be published: it holds no host, time or traceback of a run.

    Attributes:
        grid: the grid.
        cells: its cells.
        records: run id -> record; runs without a record are missing. Records with equal
            environments share one dictionary.
        history: run id -> learning curve, read on demand; empty for a run without one.
        plugins: ``Term.source`` of methods outside kdbench -> facts about them.
    """

    grid: Grid
    cells: Sequence[Cell]
    records: Mapping[str, Record]
    history: Callable[[str], History]
    plugins: Mapping[str, PluginFacts] = field(default_factory=dict)


def gather(grid: Grid, cells: Sequence[Cell], runs: Path) -> Evidence:
    """Gather the evidence of a grid from a folder of runs."""
    ids = (run.id for cell in cells for run in cell.runs)
    by_id = records.load(runs, ids)
    shared: dict[bytes, dict[str, Any]] = {}
    for key, record in by_id.items():
        # In place, because there may be very many records and nobody else holds them.
        environment = record.environment
        for private in PRIVATE:
            environment.pop(private, None)
        # Most runs share one environment. Equal bytes are equal in type, too: 1 is not True.
        environment = shared.setdefault(marshal.dumps(environment, 2), environment)
        object.__setattr__(record, "environment", environment)
        by_id[key] = public(record)
    leave_out_foreign_accuracies(grid, cells, by_id, runs)
    return Evidence(
        grid,
        cells,
        by_id,
        lambda run_id: _curve(runs, run_id, by_id.get(run_id)),
        _plugins(cells),
    )


def _plugins(cells: Sequence[Cell]) -> dict[str, PluginFacts]:
    """Describe the methods outside kdbench that cells use, as far as their files are unchanged."""
    terms = {term.source: term for cell in cells for run in cell.runs for term in run.terms}
    facts = {}
    for source, term in terms.items():
        with contextlib.suppress(UserError):
            about = lookup.describe(term.where) if source else None
            if about and about.sha256 == source:
                facts[source] = PluginFacts(about.family, about.doc, about.digests)
    return dict(sorted(facts.items()))


def _curve(runs: Path, run_id: str, record: Record | None) -> History:
    """Read a learning curve without timings, in six significant digits."""
    return history.read(runs, run_id, record=record, number=_six_digits, leave_out=TIMINGS)


def _six_digits(text: str) -> float:
    return float(f"{float(text):.6g}")


def any_history(sources: Sequence[Callable[[str], History]]) -> Callable[[str], History]:
    """Combine several sources of learning curves: the first curve found for a run is used."""

    def first_curve(run_id: str) -> History:
        return next((curve for source in sources if (curve := source(run_id))), [])

    return first_curve


def public(record: Record) -> Record:
    """Return a record without its private parts."""
    environment = record.environment
    if not record.traceback and environment.keys().isdisjoint(PRIVATE):
        return record
    kept = {key: value for key, value in environment.items() if key not in PRIVATE}
    return Record(**(vars(record) | {"environment": kept, "traceback": ""}))


def publishable_path(root: str) -> str:
    """Return the data's path as it may be published: relative, or the folder's name only."""
    path = Path(root)
    return Path(root).resolve().name if path.is_absolute() or ".." in path.parts else root


def publishable_plugin(path: str) -> str:
    """Return the path of a plugin as it may be published: its name in the folder ``ELSEWHERE``."""
    return f"{ELSEWHERE}/{Path(path).name}"


def without_local_paths(run: Run) -> Run:
    """Return the run without local paths; its id is the same."""
    dataset = run.dataset
    if dataset.root:
        dataset = dataset.model_copy(update={"root": publishable_path(dataset.root)})
    transfer = dataset.transfer
    if transfer and transfer.root:
        transfer = transfer.model_copy(update={"root": publishable_path(transfer.root)})
        dataset = dataset.model_copy(update={"transfer": transfer})
    terms = tuple(
        replace(term, path=publishable_plugin(term.path)) if term.path else term
        for term in run.terms
    )
    return replace(run, dataset=dataset, terms=terms)
