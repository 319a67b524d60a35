"""The runs of a grid as one small Parquet file, from which its leaderboard can be regenerated.

``records.parquet`` has a row per run: ``id`` and, as JSON, ``run`` (everything that decides its
result), ``record`` (its outcome) and ``history`` (its learning curve). The metadata hold the grid
and the runs of each cell, and a checksum of everything, which older archives lack. The same
evidence gives the same bytes under the same version of pyarrow. Hosts, times, tracebacks and local
paths are left out.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kdbench import NUMERICS
from kdbench.errors import one_line
from kdbench.files import write_atomically
from kdbench.grid.grid import Grid, short
from kdbench.grid.run import Cell, Run
from kdbench.runs import archive_file, history
from kdbench.runs.archive_file import CHECKSUM as CHECKSUM
from kdbench.runs.archive_file import COLUMNS as COLUMNS
from kdbench.runs.archive_file import KEY as KEY
from kdbench.runs.archive_file import NAME as NAME
from kdbench.runs.archive_file import SCHEMA
from kdbench.runs.archive_file import ArchiveError as ArchiveError
from kdbench.runs.archive_file import table as table
from kdbench.runs.archive_file import without_checksum as without_checksum
from kdbench.runs.evidence import (
    Evidence,
    History,
    PluginFacts,
    public,
    publishable_path,
    publishable_plugin,
)
from kdbench.runs.records import Record

MOST = 10_000
"""Largest number of runs that a report archives: at a kilobyte a run, a larger file would be too
large to commit."""


TEXTS = ("label", "source")
"""Keys of a grid whose values are any text, so they are never paths of plugins."""


def write(evidence: Evidence, path: Path) -> None:
    """Write evidence to an archive file."""
    write_atomically(path, dump(evidence))


def dump(evidence: Evidence) -> bytes:
    """Return the bytes of an archive file."""
    runs = {run.id: run for cell in evidence.cells for run in cell.runs}
    texts = _run_texts(evidence.cells)
    rows: dict[str, list[str | None]] = {name: [] for name in COLUMNS}
    for run_id in sorted(runs):
        record = evidence.records.get(run_id)
        curve = evidence.history(run_id)
        rows["id"].append(run_id)
        rows["run"].append(texts[run_id])
        rows["record"].append(_record(public(record)) if record else None)
        rows["history"].append(_columns(curve) if curve else None)
    return archive_file.dump(rows, _json(_grid(evidence)))


def load(path: Path) -> Evidence:
    """Load evidence from an archive.

    The learning curves are checked when they are read.

    Raises:
        ArchiveError: the file is no archive, is damaged, or was written by another version.
    """
    rows, metadata, intact = archive_file.read(path)
    try:
        if metadata["numerics"] != NUMERICS:
            raise ArchiveError(
                f"{path}: made by numerics version {one_line(metadata['numerics'])}, this kdbench "
                f"has version {NUMERICS}; their results are not comparable"
            )
        grid = Grid(**metadata["grid"])
        runs = {
            run_id: Run.from_json(json.loads(text))
            for run_id, text in zip(rows["id"], rows["run"], strict=True)
        }
        for run_id, run in runs.items():
            if run.id != run_id:
                raise ArchiveError(f"{path}: {_why_other_id(run_id, run)}")
        records = {
            run_id: Record.from_json(text, intact=intact)
            for run_id, text in zip(rows["id"], rows["record"], strict=True)
            if text is not None
        }
        wrong = [key for key, record in records.items() if record.run != key]
        if wrong:
            raise ArchiveError(f"{path}: damaged: the record of run {wrong[0]} has another id")
        cells = tuple(
            Cell(method, teacher, student, tuple(_named(runs[key], method) for key in ids))
            for method, teacher, student, ids in metadata["cells"]
        )
        plugins = {
            source: _plugin_facts(*facts) for source, facts in metadata.get("plugins", {}).items()
        }
    except ArchiveError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ArchiveError(f"{path}: damaged: {type(error).__name__}: {one_line(error)}") from error
    curves = _curves(path, rows, {} if intact else records)
    return Evidence(grid, cells, records, curves, plugins)


def load_runs(path: Path) -> dict[str, tuple[dict[str, Any], Record]]:
    """Load the runs that have a record: id -> (the run as JSON, its record), of any numerics.

    Raises:
        ArchiveError: as for ``load``.
    """
    rows, _, intact = archive_file.read(path)
    try:
        return {
            run_id: (json.loads(run), Record.from_json(record, intact=intact))
            for run_id, run, record in zip(rows["id"], rows["run"], rows["record"], strict=True)
            if record is not None
        }
    except (TypeError, ValueError, RecursionError) as error:
        raise ArchiveError(f"{path}: damaged: {type(error).__name__}: {one_line(error)}") from error


def _plugin_facts(family: Any, doc: Any, digests: Mapping[str, str] | None = None) -> PluginFacts:
    known = {str(name): str(digest) for name, digest in (digests or {}).items()}
    return PluginFacts(str(family), str(doc), known)


def _why_other_id(run_id: str, run: Run) -> str:
    """Explain why a run in an archive has another id than its settings give."""
    values = run.canonical
    version = values["dataset"].pop("version", None)
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))  # what ids are hashes of
    if version and hashlib.sha256(text.encode()).hexdigest()[:16] == run_id:
        return (
            f"made with {run.dataset.name} as kdbench read it before version {version} of this "
            "data set; its results are not comparable, and its runs have to be trained again"
        )
    return f"damaged: the content of run {one_line(run_id)} has another id"


def _curves(
    path: Path, rows: Mapping[str, Sequence[Any]], records: Mapping[str, Record]
) -> Callable[[str], History]:
    """Return a function that reads the learning curve of a run, and checks it.

    Args:
        records: those that the curves must agree with.
    """
    texts = dict(zip(rows["id"], rows["history"], strict=True))

    def curve(run_id: str) -> History:
        try:
            found = _rows(texts.get(run_id))
            history.check(found, records.get(run_id))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            problem = one_line(f"learning curve of {run_id}: {error}")
            raise ArchiveError(f"{path}: damaged: {problem}") from error
        return found

    return curve


# --- to JSON ---


def _grid(evidence: Evidence) -> dict[str, Any]:
    """Return the grid without its private parts, and its cells."""
    grid = evidence.grid.model_dump(mode="json", exclude={"executor"}, exclude_defaults=True)
    for row in grid.get("methods", ()):
        row["name"] = "+".join(map(short, row["name"].split("+")))
    for key in ("protocol", "pairs", "methods", "sweep", "report", "teacher"):
        grid |= {key: _without_plugin_paths(grid[key])} if key in grid else {}
    _remove_local_path(grid["dataset"])
    _remove_local_path(grid.get("teacher", {}).get("dataset"))
    cells = [[c.method, c.teacher, c.student, [run.id for run in c.runs]] for c in evidence.cells]
    known = {source: [f for f in facts if f != {}] for source, facts in evidence.plugins.items()}
    plugins = {"plugins": known} if known else {}
    return {"schema": SCHEMA, "numerics": NUMERICS, "grid": grid, "cells": cells, **plugins}


def _without_plugin_paths(value: Any) -> Any:
    """Return a part of a grid with publishable paths of plugins, in keys as in values."""
    if isinstance(value, dict):
        return {
            _without_plugin_paths(key): item if key in TEXTS else _without_plugin_paths(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_without_plugin_paths(item) for item in value]
    if isinstance(value, str) and ".py" in value:
        return "+".join(
            publishable_plugin(part.replace("\\", "/")) if re.search(r"[/\\].*\.py", part) else part
            for part in value.split("+")
        )
    return value


def _remove_local_path(dataset: dict[str, Any] | None) -> None:
    """Replace the path of a data set by a publishable one, and keep the name that tables show."""
    if dataset and dataset.get("root"):
        name = Path(dataset["root"]).resolve().name
        dataset |= {
            "root": publishable_path(dataset["root"]),
            "label": dataset.get("label") or name,
        }


def _run_texts(cells: Any) -> dict[str, str]:
    """Return every run as JSON; the seeds of a cell share all but id and seed."""
    texts: dict[str, str] = {}
    for cell in cells:
        rest = ""
        for run in cell.runs:
            if run.id in texts:
                continue
            if not rest or run.seedless != cell.runs[0].seedless:
                first = run.to_json()
                for term in first["terms"]:
                    if "path" in term:
                        term["path"] = publishable_plugin(term["path"])
                _remove_local_path(first["dataset"])
                rest = _json({k: v for k, v in first.items() if k not in ("id", "seed")})[1:]
            texts[run.id] = f'{{"id":"{run.id}","seed":{run.seed},{rest}'
    return texts


def _record(record: Record) -> str:
    result, cost = record.result, record.cost
    values = vars(record) | {
        "result": result.values() if result else None,
        "cost": cost.values() if cost else None,
    }
    return _json(values)


def _columns(curve: History) -> str:
    """Return a learning curve by column, a third of its size by row."""
    names = dict.fromkeys(name for row in curve for name in row)
    return _json({name: [row.get(name) for row in curve] for name in names})


def _rows(text: str | None) -> History:
    columns = json.loads(text) if text else {}
    if not all(isinstance(column, list) for column in columns.values()):
        raise ValueError("expected a list of numbers for each column")
    rows = zip(*columns.values(), strict=True)
    return [
        {name: value for name, value in zip(columns, row, strict=True) if value is not None}
        for row in rows
    ]


_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def _named(run: Run, method: str) -> Run:
    """Return the run with the name of its row."""
    return run if run.method == method else replace(run, method=method)
