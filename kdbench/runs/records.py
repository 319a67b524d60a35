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

from pydantic_core import from_json

from kdbench.errors import UserError
from kdbench.files import Permission, write_atomically, write_once
from kdbench.grid.run import Run

SCHEMA = 1
PART = 1 << 16
"""Bytes per read: larger than any record without a long traceback."""
Status = Literal["done", "diverged", "failed", "skipped"]
T = TypeVar("T", "Record", "Result", "Cost")


class RecordError(UserError):
    """A file under ``runs/`` is missing, damaged or of another version."""


@dataclass(frozen=True)
class Result:
    """Numbers of a run, equal bit for bit if the run is repeated on the same machine.

    Accuracies are in percent. ``test_acc`` is the headline: the accuracy after the last finished
    epoch, ``epoch``. ``best_acc`` is selected on the test set and shown only in a marked column.

    Attributes:
        weights: sha256 of the student's weights.
        data: sha256 of the images and labels.
        teacher_weights: sha256 of the teacher's weights.
        val_acc: accuracy after the last epoch on held-out training images.
        selected_acc: test accuracy at the epoch with the best ``val_acc``.
    """

    epoch: int
    steps: int
    train_loss: float
    train_acc: float
    test_loss: float
    test_acc: float
    test_top5: float
    best_acc: float
    best_epoch: int
    weights: str
    data: str
    n_train: int
    n_test: int
    teacher_acc: float | None = None
    teacher_weights: str | None = None
    val_acc: float | None = None
    selected_acc: float | None = None
    last_finite_loss: float | None = None


@dataclass(frozen=True)
class Cost:
    """Cost of a run. Times vary from day to day; counts do not.

    Attributes:
        seconds: steps and evaluations of this learner, summed over all attempts.
        teacher_seconds: teacher forward passes and batches. A cohort shares them; each of its runs
            counts them in full, as if it had been trained alone.
        step_ms: median milliseconds of a training step of this learner, without the teacher.
        params: number of parameters of the student.
        params_deployed: number of parameters used at inference.
        params_extra: number of parameters that the method trains and then drops.
        macs: multiply-accumulates of one image at inference, for the student alone.
        peak_mb: peak memory in MB, shared with the cohort: of the process on a CPU, of the cohort's
            tensors on a GPU.
        peak_reserved_mb: peak of the memory that torch reserved on a GPU for those tensors, in MB;
            None on a CPU, whose records leave it out.
    """

    seconds: float
    teacher_seconds: float
    step_ms: float
    params: int
    params_deployed: int
    params_extra: int
    macs: int
    peak_mb: float
    peak_reserved_mb: float | None = None

    def values(self) -> dict[str, Any]:
        """Return the fields for JSON, without those that are None."""
        return {name: value for name, value in vars(self).items() if value is not None}


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
        """Format the record for ``record.json``."""
        fields = asdict(self) | {"cost": self.cost.values() if self.cost else None}
        return json.dumps(fields, indent=1, allow_nan=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "Record":
        """Parse the output of ``to_json``.

        Raises:
            RecordError: not a record, or a record of another schema.
        """
        try:
            values = _values(text)
            if values["schema"] != SCHEMA:
                raise RecordError(f"schema {values['schema']}, this kdbench reads {SCHEMA}")
            result, cost = values["result"], values["cost"]
            if cost:
                cost.setdefault("peak_reserved_mb", None)
            values["attempts"] = tuple(values["attempts"])
            values["result"] = _made(Result, result) if result else None
            values["cost"] = _made(Cost, cost) if cost else None
            return _made(cls, values)
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as e:
            raise RecordError(f"not a record: {type(e).__name__}: {e}") from e


def _values(text: str | bytes) -> Any:
    """Parse JSON, three times as fast as ``json.loads``."""
    try:
        return from_json(text)
    except ValueError:
        # Python accepts more than the standard, such as half a surrogate pair, or raises its error.
        return json.loads(text)


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
        return Record.from_json(text)
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from error


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
            by_id[run_id] = Record.from_json(_content(path))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except RecordError as error:
            raise RecordError(f"{path}: {error}") from error
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
        RecordError: the file is missing or damaged.
    """
    path = folder(runs, run_id) / "run.json"
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise RecordError(f"{path}: no such run") from None
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: not a run: {error}") from error
    if not isinstance(values, dict):
        raise RecordError(f"{path}: not a run: expected a mapping")
    return values


def read_run(runs: Path, run_id: str) -> Run:
    """Read the run of an id.

    Raises:
        RecordError: its ``run.json`` is missing or damaged.
    """
    values = read_run_json(runs, run_id)
    try:
        return Run.from_json(values)
    except (ValueError, KeyError, TypeError) as error:
        path = folder(runs, run_id) / "run.json"
        raise RecordError(f"{path}: not a run: {error}") from error


def write_run(runs: Path, run: Run) -> None:
    """Write ``run.json`` into the folder of a run, unless it exists."""
    path = folder(runs, run.id) / "run.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(run.to_json(), indent=1) + "\n")
