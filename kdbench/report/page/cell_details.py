"""The details of each cell, as JSON for the page's script: everything in its records."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from markupsafe import Markup

from kdbench.grid.run import Cell, Run
from kdbench.report import numbers
from kdbench.report.page import cell_numbers, comparison_data, curve_data, method_details
from kdbench.report.page.main_table import WORDS, Column, TableRow
from kdbench.report.tables.table import rows_of
from kdbench.report.text.facts import gpu, processor
from kdbench.runs.records import Record
from kdbench.stats.aggregate import Aggregate
from kdbench.stats.cell_summary import by_pair
from kdbench.stats.headline import Headline

Lines = list[tuple[str, str]]
NOTHING: dict[str, Any] = {
    "cells": [], "rows": [], "curves": {}, "points": 0, "accuracy": "", "baseline": "",
    "baselines": {}, "contrasts": {"rows": [], "over": [], "pairs": {}},
}  # fmt: skip
"""The ``payload`` of a page whose cells cannot be opened."""


def payload(
    aggregate: Aggregate,
    table: Sequence[TableRow],
    columns: Sequence[Column],
    command: Callable[[Run], str] | None,
) -> dict[str, Any]:
    """Collect the details of all cells, in the order of ``aggregate.frame``, and of all rows.

    Args:
        aggregate: the grid's statistics.
        table: rows of the main table.
        columns: columns of the main table.
        command: returns the command that repeats a run; None: no commands.

    Returns:
        ``cells``, ``rows`` (see ``method_details``), ``curves`` (see ``curve_data.pack``),
        ``points`` (of the longest curve), what ``accuracy`` is, the name of the ``baseline``, its
        cell's index per pair (``baselines``) and ``contrasts`` (see ``comparison_data.pack``).
    """
    evidence, decision = aggregate.evidence, aggregate.decision
    pairs = by_pair(evidence.cells)
    cells = {(cell.method, pair): cell for pair, members in pairs.items() for cell in members}
    about = {row.name: row for row in table}
    environments: dict[int, Lines] = {}
    packed, points = curve_data.pack(
        (run.id for cell in evidence.cells for run in cell.runs),
        evidence.history,
        key=aggregate.headline.key,
    )
    out = []
    baselines = {}
    for i, (key, row) in enumerate(rows_of(aggregate.frame)):
        cell = cells[key]
        ended = [evidence.records.get(run.id) for run in cell.runs]
        versions = _versions(ended, environments)
        out.append(_cell(row, cell, ended, about[row.method], versions, aggregate, command))
        if row.method == decision.baseline and any(run.id in packed for run in cell.runs):
            baselines[row.pair] = i
    return {
        "cells": out,
        "rows": method_details.details(aggregate, table, columns),
        "curves": packed,
        "points": points,
        "accuracy": aggregate.headline.name,
        "baseline": decision.baseline or "",
        "baselines": baselines,
        "contrasts": comparison_data.pack(decision),
    }


def script(values: Any) -> Markup:
    """Write JSON that is safe inside an HTML ``script`` element."""
    dumped = json.dumps(values, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        dumped = dumped.replace(character, f"\\u{ord(character):04x}")
    return Markup(dumped)


def _cell(
    row: Any,
    cell: Cell,
    ended: Sequence[Record | None],
    about: TableRow,
    versions: Lines,
    aggregate: Aggregate,
    command: Callable[[Run], str] | None,
) -> dict[str, Any]:
    decision = aggregate.decision
    sections = [
        ("Accuracy", cell_numbers.accuracy(row, aggregate)),
        ("Other predictions, test accuracy, mean ± sd", cell_numbers.answers(ended)),
        (f"Difference to {decision.baseline}", cell_numbers.difference(row, decision)),
        ("Published", cell_numbers.published(row)),
        ("Cost", cell_numbers.cost(row, decision.baseline)),
        ("Objective and recipe", _recipe(cell.runs[0], about) if cell.runs else []),
        ("Trained with", versions),
    ]
    values: dict[str, Any] = {
        "method": row.method,
        "pair": row.pair,
        "mean": numbers.spread(row.mean, row.sd) if numbers.known(row.mean) else "",
        "status": f"{row.n} of {row.expected} seeds done"
        if row.status in ("done", "partial")
        else WORDS[row.status],
        "sections": [(title, lines) for title, lines in sections if lines],
        "runs": [
            _run(run, record, aggregate.headline)
            for run, record in zip(cell.runs, ended, strict=True)
        ],
    }
    if cell.runs:
        run = cell.runs[0]
        values["config"] = _config(run)
        if command:
            values["command"] = command(run)
    return values


def _config(run: Run) -> str:
    """Write a cell's settings as ``json.dumps(..., indent=1, default=str)`` would."""
    lines = ",\n ".join(
        f'"{key}": {_simple(value) if isinstance(value, SIMPLE) else _indented(_compact(value))}'
        for key, value in run.canonical.items()
        if key != "seed"
    )
    return f"{{\n {lines}\n}}"


SIMPLE = (str, int, float)
_compact = json.JSONEncoder(default=str).encode


@lru_cache(maxsize=4096, typed=True)
def _simple(value: str | float) -> str:
    """Write a value that most cells share as JSON."""
    return _compact(value)


@lru_cache(maxsize=4096)
def _indented(compact: str) -> str:
    """Indent one-line JSON for use inside an object.

    Cached: indenting uses Python's slow encoder, and most cells share data and recipe.
    """
    return json.dumps(json.loads(compact), indent=1).replace("\n", "\n ")


def _run(run: Run, record: Record | None, headline: Headline) -> list[Any]:
    """List seed, id, status, last and best accuracy, best epoch and reason.

    The best epoch is left out if values are chosen: it is the best on the test set. It is left out,
    too, if the row shows another prediction: it is the deployed network's.
    """
    if record is None:
        return [run.seed, run.id, "missing", None, None, None, ""]
    result = record.result
    accuracies: list[Any] = [None, None, None]
    if result:
        accuracies[0] = numbers.plain(headline.of(result, run.method), 4)
        if not headline.held_out and headline.answer(run.method) is None:
            accuracies[1:] = [numbers.plain(result.best_acc, 4), result.best_epoch]
    return [run.seed, run.id, record.status, *accuracies, record.reason]


def _recipe(run: Run, about: TableRow) -> Lines:
    training = run.training
    lines = [("Method", about.about)] if about.about else []
    if about.family != "baseline":
        lines.append(("Family", about.family))
    terms = [f"{run.gamma:g} · CE"]
    if run.teacher and run.alpha:
        terms.append(f"{run.alpha:g} · T² · KL with T = {run.temperature:g}")
    for term in run.terms:
        hyper = ", ".join(f"{key}={value}" for key, value in sorted(term.hyper.items()))
        terms.append(f"{term.beta:g} · {term.method}({hyper})")
    lines.append(("Loss", " + ".join(terms)))
    if run.pretrain:
        lines.append(("First phase", f"{run.pretrain[0]} epochs at {run.pretrain[1]:g}"))
    if run.teacher:
        lines.append(("Teacher", f"{run.teacher.arch}, run {run.teacher.run}"))
    lines += [
        ("Data", run.dataset.title),
        (
            "Recipe",
            f"{run.protocol}: {training.epochs} epochs, batch {training.batch_size}, learning rate "
            f"{training.lr:g} ({training.schedule.kind}), momentum {training.momentum:g}, weight "
            f"decay {training.weight_decay:g}, {training.precision}"
            + (", compiled" if training.compile else ""),
        ),
    ]
    return lines


def _versions(ended: Sequence[Record | None], environments: dict[int, Lines]) -> Lines:
    """List each distinct value of the environments once, so that differences are visible.

    Args:
        ended: a cell's records.
        environments: cache of lines by the environment's identity; most records share one, see
            ``evidence.gather``.
    """
    seen: dict[str, dict[str, None]] = {}
    distinct = {id(r.environment): r.environment for r in ended if r and r.result}
    for key, environment in distinct.items():
        if key not in environments:
            environments[key] = _environment(environment)
        for name, value in environments[key]:
            if value:
                seen.setdefault(name, {})[value] = None
    return [(name, "; ".join(values)) for name, values in seen.items()]


def _environment(environment: Mapping[str, Any]) -> Lines:
    commit = str(environment.get("commit") or "not recorded")
    dirty = " with uncommitted changes" if environment.get("dirty") else ""
    device = str(environment.get("device", ""))
    versions = environment.get("versions") or {}
    varying = environment.get("nondeterministic") or ()
    return [
        ("Commit", f"{commit[:12]}{dirty}"),
        ("Versions", ", ".join(f"{key} {value}" for key, value in versions.items())),
        ("Device", f"{device} {processor(environment) if device == 'cpu' else ''}".strip()),
        ("GPU", gpu(environment)),
        ("Steps as CUDA graphs", str(environment.get("graphed") or "")),
        ("Operations that may vary in the last bits", ", ".join(varying)),
        ("Threads", str(environment.get("threads", ""))),
    ]
