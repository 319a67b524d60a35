"""The runs of a grid as one small Parquet file, from which its leaderboard can be regenerated.

``records.parquet`` has a row per run: ``id`` and, as JSON, ``run`` (everything that decides its
result), ``record`` (its outcome) and ``history`` (its learning curve). The metadata hold the grid
and the runs of each cell. The same evidence gives the same bytes under the same version of pyarrow.
Hosts, times, tracebacks and local paths are left out.
"""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench import NUMERICS
from kdbench.errors import UserError
from kdbench.files import write_atomically
from kdbench.grid.grid import Grid, short
from kdbench.grid.run import Cell, Run
from kdbench.runs.evidence import Evidence, History, public, publishable_path, publishable_plugin
from kdbench.runs.records import Record, RecordError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow

NAME = "records.parquet"
KEY = b"kdbench"
MOST = 10_000
"""Largest number of runs that a report archives: at a kilobyte a run, a larger file would be too
large to commit."""
SCHEMA = 1
COLUMNS = ("id", "run", "record", "history")


class ArchiveError(UserError):
    """An archive is missing, damaged or of another version."""


def write(evidence: Evidence, path: Path) -> None:
    """Write evidence to an archive file."""
    write_atomically(path, dump(evidence))


def dump(evidence: Evidence) -> bytes:
    """Return the bytes of an archive file."""
    import pyarrow as pa

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
    table = pa.table({name: pa.array(values, pa.string()) for name, values in rows.items()})
    return _bytes(table.replace_schema_metadata({KEY: _json(_grid(evidence)).encode()}))


def table(frame: "pd.DataFrame") -> bytes:
    """Return a data frame as the bytes of a Parquet file; equal frames give equal bytes."""
    import pyarrow as pa

    return _bytes(pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None))


def load(path: Path) -> Evidence:
    """Load evidence from an archive.

    Raises:
        ArchiveError: the file is no archive, is damaged, or was written by another version.
    """
    rows, metadata = _read(path)
    if metadata["numerics"] != NUMERICS:
        raise ArchiveError(
            f"{path}: made by numerics version {metadata['numerics']}, this kdbench has version "
            f"{NUMERICS}; their results are not comparable"
        )
    try:
        grid = Grid(**metadata["grid"])
        records = {
            run_id: Record.from_json(text)
            for run_id, text in zip(rows["id"], rows["record"], strict=True)
            if text is not None
        }
        runs = {
            run_id: Run.from_json(json.loads(text))
            for run_id, text in zip(rows["id"], rows["run"], strict=True)
        }
        cells = tuple(
            Cell(method, teacher, student, tuple(_named(runs[key], method) for key in ids))
            for method, teacher, student, ids in metadata["cells"]
        )
    except (RecordError, KeyError, TypeError, ValueError) as error:
        raise ArchiveError(f"{path}: damaged: {type(error).__name__}: {error}") from error
    wrong = [key for key, run in runs.items() if run.id != key]
    wrong += [key for key, record in records.items() if record.run != key]
    if wrong:
        raise ArchiveError(f"{path}: damaged: the content of run {wrong[0]} has another id")
    curves = dict(zip(rows["id"], rows["history"], strict=True))
    plugins = {
        source: (family, doc) for source, (family, doc) in metadata.get("plugins", {}).items()
    }
    return Evidence(grid, cells, records, lambda run_id: _rows(curves.get(run_id)), plugins)


def load_runs(path: Path) -> dict[str, tuple[dict[str, Any], Record]]:
    """Load the runs that have a record: id -> (the run as JSON, its record), of any numerics.

    Raises:
        ArchiveError: as for ``load``.
    """
    rows, _ = _read(path)
    try:
        return {
            run_id: (json.loads(run), Record.from_json(record))
            for run_id, run, record in zip(rows["id"], rows["run"], rows["record"], strict=True)
            if record is not None
        }
    except (RecordError, TypeError, ValueError) as error:
        raise ArchiveError(f"{path}: damaged: {type(error).__name__}: {error}") from error


def _read(path: Path) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        archived = pq.read_table(io.BytesIO(path.read_bytes()))
        metadata = json.loads((archived.schema.metadata or {})[KEY])
        rows = {name: archived.column(name).to_pylist() for name in COLUMNS}
    except FileNotFoundError:
        raise ArchiveError(f"{path}: no such file") from None
    except (pa.ArrowException, KeyError, ValueError) as error:
        reason = " ".join(str(error).split()) if isinstance(error, pa.ArrowException) else ""
        raise ArchiveError(
            f"{path}: no records of kdbench; expected a {NAME} that `kdbench report` wrote"
            + (f" ({reason})" if reason else "")
        ) from error
    if not isinstance(metadata, dict) or metadata.get("schema") != SCHEMA:
        raise ArchiveError(
            f"{path}: written by another version; this kdbench reads schema {SCHEMA}"
        )
    return rows, metadata


# --- to JSON ---


def _grid(evidence: Evidence) -> dict[str, Any]:
    """Return the grid without its private parts, and its cells."""
    grid = evidence.grid.model_dump(mode="json", exclude={"executor"}, exclude_defaults=True)
    for row in grid.get("methods", ()):
        row["name"] = "+".join(map(short, row["name"].split("+")))
    _remove_local_path(grid["dataset"])
    _remove_local_path(grid.get("teacher", {}).get("dataset"))
    cells = [[c.method, c.teacher, c.student, [run.id for run in c.runs]] for c in evidence.cells]
    plugins = {"plugins": evidence.plugins} if evidence.plugins else {}
    return {"schema": SCHEMA, "numerics": NUMERICS, "grid": grid, "cells": cells, **plugins}


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
        "result": vars(result) if result else None,
        "cost": cost.values() if cost else None,
    }
    return _json(values)


def _columns(curve: History) -> str:
    """Return a learning curve by column, a third of its size by row."""
    names = dict.fromkeys(name for row in curve for name in row)
    return _json({name: [row.get(name) for row in curve] for name in names})


def _rows(text: str | None) -> History:
    columns = json.loads(text) if text else {}
    rows = zip(*columns.values(), strict=True)
    return [
        {name: value for name, value in zip(columns, row, strict=True) if value is not None}
        for row in rows
    ]


_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def _named(run: Run, method: str) -> Run:
    """Return the run with the name of its row."""
    return run if run.method == method else replace(run, method=method)


def _bytes(table: "pyarrow.Table") -> bytes:
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", compression_level=9, use_dictionary=False,
                   row_group_size=1 << 20, write_statistics=False, store_schema=True)  # fmt: skip
    return sink.getvalue()
