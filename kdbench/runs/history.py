"""Learning curves: ``runs/<id>/history.csv``, a row per epoch."""

import csv
import io
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from kdbench.files import Permission, write_atomically

NAME = "history.csv"
COLUMNS = ("epoch", "train_loss", "train_acc", "test_loss", "test_acc", "test_top5")


def write(
    folder: Path, rows: Sequence[Mapping[str, float]], *, permission: Permission = nullcontext
) -> None:
    """Write the learning curve of a run.

    Args:
        folder: of the run.
        rows: one per epoch; ``val_acc`` and ``seconds`` are optional, other keys are left out.
        permission: as in ``files.write_atomically``.
    """
    columns = [*COLUMNS, *(["val_acc"] if rows and "val_acc" in rows[0] else []), "seconds"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, "", "ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(folder / NAME, text.getvalue(), permission=permission)


def read(
    runs: Path,
    run_id: str,
    *,
    number: Callable[[str], float] = float,
    leave_out: Container[str] = (),
) -> list[dict[str, float]]:
    """Read the learning curve of a run; a run without one has no rows.

    Args:
        runs: folder of runs.
        run_id: id of the run.
        number: converts a field.
        leave_out: columns to skip; empty fields are skipped, too.
    """
    # Strings and ``open`` are faster than ``Path``: there may be very many runs.
    try:
        with open(f"{runs}/{run_id}/{NAME}", newline="", encoding="utf-8") as file:  # noqa: PTH123
            return [
                {k: number(text) for k, text in row.items() if text and k not in leave_out}
                for row in csv.DictReader(file)
            ]
    except FileNotFoundError:
        return []
