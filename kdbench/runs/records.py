"""What runs left on disk: ``Record``, written once, atomically, last; a folder of them, read fast.

``runs/<id>/`` holds ``run.json`` (the resolved run), ``history.csv``, ``checkpoint.pt`` and, when
the run has ended, ``record.json``. No torch here, nor anything that imports it.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic_core import from_json

from kdbench.errors import UserError
from kdbench.files import write_atomically
from kdbench.grid.run import Run

SCHEMA = 1
PART = 1 << 16
"""Bytes to read at once: more than a record has, but for a long traceback."""
Status = Literal["done", "diverged", "failed", "skipped"]
T = TypeVar("T", "Record", "Result", "Cost")


class RecordError(UserError):
    """A file under ``runs/`` that should be whole is not."""


@dataclass(frozen=True)
class Result:
    """The numbers of a run; the same run gives the same, bit for bit, on the same machine.

    Accuracies are in percent. ``epoch`` is the last epoch that ended and the headline is its
    ``test_acc``; ``best_acc`` is selected on the test set and shown only as a flagged column.

    Attributes:
        weights: sha256 of the student's weights; data: of the images and labels used.
        teacher_weights: sha256 of the teacher's weights.
        val_acc: last epoch's, on the held-out share of the training set.
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
    """What a run took. Times move from day to day; counts do not.

    Attributes:
        seconds: this learner's own steps and evaluations, all attempts together.
        teacher_seconds: teacher forwards and batches, which a cohort shares; counted whole, as if
            this learner had been alone.
        step_ms: median milliseconds of one training step of this learner, teacher excluded.
        params: of the student. params_deployed: of all that stays at inference.
        params_extra: trained by the method and dropped afterwards.
        macs: multiply-accumulates of one image at inference, student alone.
        peak_mb: most memory the process held, in MB, shared with its cohort.
    """

    seconds: float
    teacher_seconds: float
    step_ms: float
    params: int
    params_deployed: int
    params_extra: int
    macs: int
    peak_mb: float


@dataclass(frozen=True)
class Record:
    """How a run ended.

    Attributes:
        run: id. status: how. reason: one line, where it did not end well.
        result: None when nothing was measured. cost: likewise.
        traceback: of a run that failed.
        environment: versions, commit, device, threads, host, start and end in ISO 8601 UTC.
        attempts: what earlier attempts ended in, oldest first.
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
        """For ``record.json``."""
        return json.dumps(asdict(self), indent=1, allow_nan=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "Record":
        """The record that ``to_json`` wrote.

        Raises:
            RecordError: not a record, or one of another schema.
        """
        try:
            values = _values(text)
            if values["schema"] != SCHEMA:
                raise RecordError(f"schema {values['schema']}, this kdbench reads {SCHEMA}")
            result, cost = values["result"], values["cost"]
            values["attempts"] = tuple(values["attempts"])
            values["result"] = _made(Result, result) if result else None
            values["cost"] = _made(Cost, cost) if cost else None
            return _made(cls, values)
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as e:
            raise RecordError(f"not a record: {type(e).__name__}: {e}") from e


def _values(text: str | bytes) -> Any:
    """``json.loads``, in a third of its time."""
    try:
        return from_json(text)
    except ValueError:
        # What Python reads beyond the standard, such as half a surrogate pair; or its complaint.
        return json.loads(text)


def _made(cls: type[T], values: dict[str, Any]) -> T:
    """``cls(**values)``; there may be very many, and a frozen dataclass sets field by field."""
    if values.keys() != cls.__dataclass_fields__.keys():
        return cls(**values)
    new = object.__new__(cls)
    new.__dict__.update(values)
    return new


def folder(runs: Path, run_id: str) -> Path:
    """Where a run leaves its files."""
    return runs / run_id


def write(runs: Path, record: Record) -> bool:
    """Write a run's record, atomically; it is the last thing a run writes.

    Returns:
        False where the run has a record already: the first one stays.
    """
    path = folder(runs, record.run) / "record.json"
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    write_atomically(fresh, record.to_json())
    try:
        os.link(fresh, path)  # unlike a rename, refuses where there is one
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        if path.exists():
            return False
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    return True


def read(runs: Path, run_id: str) -> Record | None:
    """The record of a run, or None where it has none yet.

    Raises:
        RecordError: there is one, and it is damaged; the message names the file.
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
    """Whether a run has a record, whatever it says."""
    return (folder(runs, run_id) / "record.json").exists()


def load(runs: Path, ids: Iterable[str]) -> dict[str, Record]:
    """The records there are of these runs."""
    found = {}
    for run_id in dict.fromkeys(ids):
        path = f"{runs}/{run_id}/record.json"
        try:
            found[run_id] = Record.from_json(_content(path))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except RecordError as error:
            raise RecordError(f"{path}: {error}") from error
    return found


def _content(path: str) -> bytes:
    """As ``Path.read_bytes``, in half its time: there may be very many."""
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


def find(runs: Path, start: str) -> str:
    """The one id of a run in a folder that starts so.

    Raises:
        UserError: none does, or several do.
    """
    try:
        names = [path.name for path in runs.iterdir() if (path / "run.json").exists()]
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{runs}: no such folder of runs") from None
    starts = sorted(name for name in names if name.startswith(start))
    if start in starts:
        return start
    if len(starts) == 1:
        return starts[0]
    more = ", ..." if len(starts) > 5 else ""
    what = (
        f"{len(starts)} runs start so: {', '.join(starts[:5])}{more}" if starts else "no such run"
    )
    raise UserError(f"{runs}/{start}: {what}")


def read_run(runs: Path, run_id: str) -> Run:
    """The run that lies under an id.

    Raises:
        RecordError: there is none, or it is damaged.
    """
    path = folder(runs, run_id) / "run.json"
    try:
        return Run.from_json(json.loads(path.read_bytes()))
    except FileNotFoundError:
        raise RecordError(f"{path}: no such run") from None
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{path}: not a run: {error}") from error


def write_run(runs: Path, run: Run) -> None:
    """Make the run's folder and its ``run.json``, unless it is there."""
    path = folder(runs, run.id) / "run.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(run.to_json(), indent=1) + "\n")
