"""The Parquet file of an archive: columns of text, metadata, and a checksum of both."""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.errors import UserError, one_line

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow

NAME = "records.parquet"
KEY = b"kdbench"
CHECKSUM = b"kdbench.sha256"
SCHEMA = 1
COLUMNS = ("id", "run", "record", "history")


class ArchiveError(UserError):
    """An archive is missing, damaged or of another version."""


def dump(rows: Mapping[str, Sequence[str | None]], metadata: str) -> bytes:
    """Return the bytes of an archive of ``COLUMNS``, with a checksum."""
    import pyarrow as pa

    table = pa.table({name: pa.array(values, pa.string()) for name, values in rows.items()})
    checksum = _checksum(rows, metadata.encode()).encode()
    return _bytes(table.replace_schema_metadata({KEY: metadata.encode(), CHECKSUM: checksum}))


def table(frame: "pd.DataFrame") -> bytes:
    """Return a data frame as the bytes of a Parquet file; equal frames give equal bytes."""
    import pyarrow as pa

    return _bytes(pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None))


def read(path: Path) -> tuple[dict[str, list[Any]], dict[str, Any], bool]:
    """Read the columns and the metadata of an archive, and whether a checksum verified them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        archived = pq.read_table(io.BytesIO(path.read_bytes()))
        written = archived.schema.metadata or {}
        metadata = json.loads(written[KEY])
        rows = {name: archived.column(name).to_pylist() for name in COLUMNS}
    except FileNotFoundError:
        raise ArchiveError(f"{path}: no such file") from None
    except (pa.ArrowException, KeyError, ValueError, OSError, RecursionError) as error:
        if isinstance(error, OSError) and error.filename:
            raise
        reason = one_line(error) if isinstance(error, pa.ArrowException) else ""
        raise ArchiveError(
            f"{path}: no records of kdbench; expected a {NAME} that `kdbench report` wrote"
            + (f" ({reason})" if reason else "")
        ) from error
    if not isinstance(metadata, dict) or metadata.get("schema") != SCHEMA:
        raise ArchiveError(
            f"{path}: written by another version; this kdbench reads schema {SCHEMA}"
        )
    checksum = written.get(CHECKSUM)
    if not all(isinstance(value, str | None) for name in COLUMNS for value in rows[name]):
        raise ArchiveError(f"{path}: damaged: expected columns of text")
    if len(set(rows["id"])) < len(rows["id"]):
        raise ArchiveError(f"{path}: damaged: a run twice")
    if checksum is not None and _checksum(rows, written[KEY]).encode() != checksum:
        raise ArchiveError(f"{path}: damaged: its content does not match its checksum")
    return rows, metadata, checksum is not None


def _checksum(rows: Mapping[str, Sequence[str | None]], metadata: bytes) -> str:
    """Return the sha256 of an archive's texts; no text has a line break."""
    total = hashlib.sha256(metadata)
    for name in COLUMNS:
        total.update(f"\n{name}\n".encode())
        total.update("\n".join(text or "" for text in rows[name]).encode())
    return total.hexdigest()


def without_checksum(table: "pyarrow.Table") -> "pyarrow.Table":
    """Return a table without the checksum in its metadata, which older archives lack."""
    metadata = table.schema.metadata or {}
    return table.replace_schema_metadata({k: v for k, v in metadata.items() if k != CHECKSUM})


def _bytes(table: "pyarrow.Table") -> bytes:
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", compression_level=9, use_dictionary=False,
                   row_group_size=1 << 20, write_statistics=False, store_schema=True)  # fmt: skip
    return sink.getvalue()
