"""Records of runs. A record is written once, atomically, as the last file of a run.

``runs/<id>/`` holds ``run.json`` (the resolved run), ``history.csv``, ``checkpoint.pt`` and, after
the end of the run, ``record.json``. This module does not import torch, directly or indirectly.
"""

import json
import os
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from kdbench import NUMERICS
from kdbench.errors import UserError, one_line
from kdbench.files import Permission, write_atomically, write_once
from kdbench.grid.run import Run
from kdbench.runs import checksums, record_format
from kdbench.runs.checksums import ChecksumError
from kdbench.runs.measurements import Cost as Cost
from kdbench.runs.measurements import Result as Result
from kdbench.runs.record_format import SCHEMA, FormatError

PART = 1 << 16
"""Bytes per read: larger than any record without a long traceback."""
REMEDY = "; restore the file, or delete it and train the run again"
Status = Literal["done", "diverged", "failed", "skipped"]
T = TypeVar("T", "Record", "Result", "Cost")


class RecordError(UserError):
    """A file under ``runs/`` is missing, damaged or of another version."""


@dataclass(frozen=True)
class Record:
    """Outcome of a run.

    Attributes:
        run: id of the run.
        status: done, diverged, failed or skipped.
        reason: one line, if the status is not done.
        result: None if nothing was measured.
        cost: None if nothing was measured.
        traceback: traceback of a failed run.
        environment: versions, commit, device, threads, host, start and end in ISO 8601 UTC.
        attempts: outcomes of earlier attempts, oldest first.
    """

    run: str
    status: Status
    reason: str = ""
    result: Result | None = None
    cost: Cost | None = None
    traceback: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    attempts: tuple[str, ...] = ()
    schema: int = SCHEMA

    def to_json(self) -> str:
        """Format the record for ``record.json``, with a checksum."""
        fields = asdict(self) | {
            "result": self.result.values() if self.result else None,
            "cost": self.cost.values() if self.cost else None,
        }
        return checksums.add(json.dumps(fields, indent=1, allow_nan=True) + "\n")

    @classmethod
    def from_json(cls, text: str | bytes, *, intact: bool = False) -> "Record":
        """Parse the output of ``to_json``, or a record in JSON without a checksum.

        Args:
            text: the record. Without a checksum, its accuracies must be those of a whole number of
                images, which detects most damage.
            intact: something else has verified the text.

        Raises:
            RecordError: not a record, damaged, or of another schema.
        """
        try:
            intact = checksums.verify(text.encode() if isinstance(text, str) else text) or intact
            values = record_format.parse(text)
        except (ChecksumError, FormatError, UnicodeEncodeError) as error:
            raise RecordError(f"not a record: {error}") from None
        if values.pop("checksum", None) is not None and not intact:
            raise RecordError(f"not a record: {checksums.MISMATCH}")
        result, cost = values["result"], values["cost"]
        if result and not intact and (problem := record_format.fractional(result)):
            raise RecordError(f"not a record: {problem}")
        if result:
            result.setdefault("answers", None)
        if cost:
            cost.setdefault("peak_reserved_mb", None)
        values["attempts"] = tuple(values["attempts"])
        values["result"] = _made(Result, result) if result else None
        values["cost"] = _made(Cost, cost) if cost else None
        return _made(cls, values)


def _made(cls: type[T], values: dict[str, Any]) -> T:
    """Return ``cls(**values)``, faster: a frozen dataclass sets its fields one by one."""
    if values.keys() != cls.__dataclass_fields__.keys():
        return cls(**values)
    new = object.__new__(cls)
    new.__dict__.update(values)
    return new


def folder(runs: Path, run_id: str) -> Path:
    """Return the folder of a run."""
    return runs / run_id


def write(runs: Path, record: Record, *, permission: Permission = nullcontext) -> bool:
    """Write the record of a run atomically, as the last file of the run.

    Args:
        runs: folder of runs.
        record: what to write.
        permission: as in ``files.write_once``.

    Returns:
        False if the run already has a record, which then stays.
    """
    path = folder(runs, record.run) / "record.json"
    return write_once(path, record.to_json(), permission=permission)


def read(runs: Path, run_id: str) -> Record | None:
    """Read the record of a run; None if there is no record yet.

    Raises:
        RecordError: the record is damaged; the message names the file.
    """
    path = folder(runs, run_id) / "record.json"
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return _belonging(Record.from_json(text), run_id)
    except RecordError as error:
        raise RecordError(f"{path}: {error}{REMEDY}") from error


def _belonging(record: Record, run_id: str) -> Record:
    """Return the record if it is that of the run."""
    if record.run != run_id:
        raise RecordError(f"not a record of this run, but of {record.run[:40]!r}")
    return record


def has_checksum(runs: Path, run_id: str) -> bool:
    """Check whether the record of a run, which ``read`` accepts, was verified by a checksum."""
    return checksums.verify((folder(runs, run_id) / "record.json").read_bytes())


def has_record(runs: Path, run_id: str) -> bool:
    """Check whether a run has a record, without reading it."""
    return (folder(runs, run_id) / "record.json").exists()


def load(runs: Path, ids: Iterable[str]) -> dict[str, Record]:
    """Read the records of runs; runs without a record are left out.

    Raises:
        RecordError: a record is damaged; the message names the file.
    """
    by_id = {}
    for run_id in dict.fromkeys(ids):
        path = f"{runs}/{run_id}/record.json"
        try:
            by_id[run_id] = _belonging(Record.from_json(_content(path)), run_id)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except RecordError as error:
            raise RecordError(f"{path}: {error}{REMEDY}") from error
    return by_id


def _content(path: str) -> bytes:
    """Read a file in half the time of ``Path.read_bytes``."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = b""
        while part := os.read(file, PART):
            content += part
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(file)
    return content


def read_run_json(runs: Path, run_id: str) -> dict[str, Any]:
    """Read the ``run.json`` of a run, or of an imported teacher, which is no ``Run``.

    Raises:
        RecordError: the file is missing or damaged, or that of another run.
    """
    path = folder(runs, run_id) / "run.json"
    try:
        content = path.read_bytes()
        intact = checksums.verify(content)
        values = json.loads(content)
    except FileNotFoundError:
        raise RecordError(f"{path}: no such run") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"{path}: not a run: {one_line(error)}") from error
    if not isinstance(values, dict):
        raise RecordError(f"{path}: not a run: expected a mapping")
    if checksums.KEY in values and not intact:
        raise RecordError(f"{path}: not a run: {checksums.MISMATCH}")
    values.pop(checksums.KEY, None)
    if values.get("id", run_id) != run_id:
        raise RecordError(f"{path}: the settings of another run, {str(values['id'])[:40]!r}")
    return values


def read_run(runs: Path, run_id: str) -> Run:
    """Read the run of an id.

    Raises:
        RecordError: its ``run.json`` is missing or damaged, or that of another run.
    """
    values = read_run_json(runs, run_id)
    path = folder(runs, run_id) / "run.json"
    try:
        run = Run.from_json(values)
        same = run.id == run_id or _id_may_differ(values, run)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise RecordError(f"{path}: not a run: {one_line(error)}") from error
    if not same:
        raise RecordError(f"{path}: damaged: its settings are those of another run, {run.id}")
    return run


def _id_may_differ(values: dict[str, Any], run: Run) -> bool:
    """Check whether the id of a run's settings depends on more than the settings.

    That is so under other numerics, and with a folder of images without a label, whose name depends
    on links and on the working folder.
    """
    other = values.get("numerics", NUMERICS)
    parts = (run.dataset, run.dataset.transfer)
    return (type(other) is int and other != NUMERICS) or any(
        part and part.root and not part.label for part in parts
    )


def write_run(runs: Path, run: Run) -> None:
    """Write ``run.json`` with a checksum into the folder of a run, unless it exists."""
    path = folder(runs, run.id) / "run.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, checksums.add(json.dumps(run.to_json(), indent=1) + "\n"))
