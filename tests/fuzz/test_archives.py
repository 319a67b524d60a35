"""Damaged and invented archives are refused in one line, or give what they were made of."""

import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damaged_files import anything, damaged_bytes, damaged_json
from fake_grids import evidence_of, make_cells, make_grid, make_records
from fuzzing import answer, fuzzed
from hypothesis import given
from hypothesis import strategies as st

from kdbench.runs import archive
from kdbench.runs.evidence import Evidence

GRID = make_grid(seeds=(0, 1))
CELLS = make_cells(GRID, ("kd",))
EVIDENCE = evidence_of(GRID, CELLS, make_records(CELLS, lambda run: 80.25 + run.seed))
CONTENT = archive.dump(EVIDENCE)
TABLE = pq.read_table(io.BytesIO(CONTENT))
METADATA = TABLE.schema.metadata[archive.KEY]


def use(path: Path) -> Evidence:
    """Load an archive and all its learning curves."""
    evidence = archive.load(path)
    for cell in evidence.cells:
        for run in cell.runs:
            evidence.history(run.id)
    return evidence


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name) / archive.NAME


def check(path: Path, content: bytes, *, checked: bool) -> None:
    path.write_bytes(content)
    message = answer(lambda: use(path))
    if message:
        assert message.startswith(f"{path}: ") and "\n" not in message
    elif checked:
        found = use(path)
        assert (found.grid, found.cells) == (EVIDENCE.grid, tuple(EVIDENCE.cells))
        assert found.records == EVIDENCE.records
        for run_id in EVIDENCE.records:
            assert found.history(run_id) == EVIDENCE.history(run_id)


@fuzzed
@given(content=damaged_bytes(CONTENT))
def test_no_damaged_archive_gives_other_evidence(path: Path, content: bytes) -> None:
    check(path, content, checked=True)


@st.composite
def changed_tables(draw: st.DrawFn, *, checksum: bool) -> bytes:
    """Draw an archive with another text in a row, or other metadata, perhaps with its checksum."""
    column = draw(st.sampled_from(archive.COLUMNS))
    values: list[Any] = TABLE[column].to_pylist()
    at = draw(st.integers(0, len(values) - 1))
    if column == "id":
        values[at] = draw(st.none() | st.sampled_from(values) | st.text(max_size=20))
    else:
        text = values[at].encode()
        changed = draw(damaged_json(text) | damaged_bytes(text) | st.none())
        values[at] = changed if changed is None else changed.decode("utf-8", "replace")
    table = TABLE.set_column(archive.COLUMNS.index(column), column, pa.array(values, pa.string()))
    metadata = {archive.KEY: METADATA}
    if draw(st.booleans()):
        metadata[archive.KEY] = draw(damaged_json(METADATA) | damaged_bytes(METADATA))
    if checksum:
        metadata[archive.CHECKSUM] = TABLE.schema.metadata[archive.CHECKSUM]
    return parquet(table.replace_schema_metadata(metadata))


@fuzzed
@given(content=changed_tables(checksum=True))
def test_changed_text_does_not_match_the_checksum(path: Path, content: bytes) -> None:
    check(path, content, checked=True)


@fuzzed
@given(content=changed_tables(checksum=False))
def test_changed_archive_without_checksum_is_read_or_refused(path: Path, content: bytes) -> None:
    check(path, content, checked=False)


@fuzzed
@given(metadata=st.dictionaries(st.text(max_size=5), anything, max_size=3), rows=st.data())
def test_invented_archive_is_refused(
    path: Path, metadata: dict[str, Any], rows: st.DataObject
) -> None:
    kinds = st.sampled_from([pa.array([1]), pa.array(["x"]), pa.array([None]), pa.array([[1.0]])])
    table = pa.table({name: rows.draw(kinds) for name in archive.COLUMNS})
    invented = {"schema": 1, "numerics": 1, "grid": {}, "cells": []} | metadata
    table = table.replace_schema_metadata({archive.KEY: json.dumps(invented).encode()})
    check(path, parquet(table), checked=False)
    assert answer(lambda: use(path))
