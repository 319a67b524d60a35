"""Learning curves: ``runs/<id>/history.csv``, a row per epoch."""

import csv
import io
import math
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from kdbench.errors import one_line
from kdbench.files import Permission, write_atomically
from kdbench.runs.records import Record, RecordError

NAME = "history.csv"
COLUMNS = ("epoch", "train_loss", "train_acc", "test_loss", "test_acc", "test_top5")
ACCURACIES = ("train_acc", "test_acc", "test_top5", "val_acc")
ANSWERS = ("test_acc_", "val_acc_")
"""Beginnings of the names of columns with accuracies of other predictions."""
DIGITS = 1e-5
"""Relative difference that six significant digits allow."""


def write(
    folder: Path, rows: Sequence[Mapping[str, float]], *, permission: Permission = nullcontext
) -> None:
    """Write the learning curve of a run.

    Args:
        folder: of the run.
        rows: one per epoch; ``val_acc``, ``seconds`` and the accuracies of other predictions
            (``test_acc_ensemble``) are optional, other keys are left out.
        permission: as in ``files.write_atomically``.
    """
    more = [name for name in (rows[0] if rows else ()) if name == "val_acc" or is_answer(name)]
    columns = [*COLUMNS, *more, "seconds"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, "", "ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(folder / NAME, text.getvalue(), permission=permission)


def read(
    runs: Path,
    run_id: str,
    *,
    record: Record | None = None,
    number: Callable[[str], float] = float,
    leave_out: Container[str] = (),
) -> list[dict[str, float]]:
    """Read the learning curve of a run; a run without one has no rows.

    Args:
        runs: folder of runs.
        run_id: id of the run.
        record: of the run, which the curve must agree with.
        number: converts a field.
        leave_out: columns to skip; empty fields are skipped, too.

    Raises:
        RecordError: the file is damaged; the message names it.
    """
    # Strings and ``open`` are faster than ``Path``: there may be very many runs.
    path = f"{runs}/{run_id}/{NAME}"
    try:
        with open(path, newline="", encoding="utf-8") as file:  # noqa: PTH123
            lines = list(csv.reader(file, strict=True))
    except FileNotFoundError:
        return []
    except (UnicodeDecodeError, csv.Error) as error:
        raise _damaged(path, str(error)) from None
    try:
        rows = _rows(lines, number, leave_out)
        check(rows, record)
    except ValueError as error:
        raise _damaged(path, str(error)) from None
    return rows


def answers(row: Mapping[str, float]) -> dict[str, float]:
    """Return the test accuracies of other predictions (``Method.answers``) in a row, by name."""
    prefix = ANSWERS[0]
    columns = (name for name in row if name.startswith(prefix) and is_answer(name))
    return {name.removeprefix(prefix): row[name] for name in columns}


def is_answer(name: str) -> bool:
    """Tell whether a column has the accuracies of another prediction (``Method.answers``)."""
    # Traced values have a dot in their names.
    return name.startswith(ANSWERS) and "." not in name


def _damaged(path: str, problem: str) -> RecordError:
    return RecordError(
        f"{path}: not a learning curve: {one_line(problem)}; restore the file, delete it to do "
        "without the curve, or delete the run's folder to train it again"
    )


def _rows(
    lines: Sequence[Sequence[str]], number: Callable[[str], float], leave_out: Container[str]
) -> list[dict[str, float]]:
    """Return the rows of a table whose first line names the columns."""
    columns = lines[0] if lines else []
    if "epoch" not in columns or "test_acc" not in columns or len(set(columns)) < len(columns):
        raise ValueError("the first line does not name the columns")
    rows = []
    for i, line in enumerate(lines[1:], 2):
        if len(line) != len(columns):
            raise ValueError(f"line {i}: {len(line)} fields, expected {len(columns)}")
        try:
            rows.append({
                name: number(text)
                for name, text in zip(columns, line, strict=True)
                if text and name not in leave_out
            })  # fmt: skip
        except ValueError as error:
            raise ValueError(f"line {i}: {error}") from None
    return rows


def check(rows: Sequence[Mapping[str, float]], record: Record | None) -> None:
    """Check that a learning curve is possible, and that it ends as the run's record says.

    Raises:
        ValueError: it is not.
    """
    for i, row in enumerate(rows, 1):
        if not all(type(value) in (float, int) for value in row.values()):
            raise ValueError(f"epoch {i}: expected numbers")
        if row.get("epoch") != i:
            raise ValueError(f"epoch {row.get('epoch')}, expected {i}")
        for name in (*ACCURACIES, *filter(is_answer, row)):
            if not 0 <= row.get(name, 0) <= 100:
                raise ValueError(f"epoch {i}: {name}: {row[name]}: expected 0 to 100")
    result = record.result if record else None
    if not rows or result is None:
        return
    if len(rows) != result.epoch:
        raise ValueError(f"{len(rows)} epochs, the run's record says {result.epoch}")
    for epoch, name, expected in (
        (result.epoch, "test_acc", result.test_acc),
        (result.best_epoch, "test_acc", result.best_acc),
        *((result.epoch, f"test_acc_{key}", acc) for key, acc in (result.answers or {}).items()),
    ):
        found = rows[epoch - 1].get(name, math.nan)
        if not math.isclose(found, expected, rel_tol=DIGITS):
            raise ValueError(f"epoch {epoch}: {name}: {found}, the run's record says {expected}")
