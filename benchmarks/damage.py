"""Damage to the files of a run: how many flipped bits change a number without an error.

Every bit of a file is flipped, one at a time, and the file is read again. "accepted" counts the
files that were read without an error and gave other values, "other_accuracy" those of them that
gave another test accuracy. Files without a checksum are those of earlier versions.

python -m benchmarks.damage
"""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.report import record
from kdbench.errors import UserError
from kdbench.grid import expand, parsing
from kdbench.grid.run import Run
from kdbench.runs import checksums, records

GRID = {
    "name": "damage",
    "dataset": "cifar100",
    "protocol": "semckd",
    "seeds": [0],
    "pairs": ["resnet32x4 -> resnet8x4"],
    "methods": ["kd"],
}


def main() -> None:
    """Print a JSON object per kind of file."""
    with tempfile.TemporaryDirectory() as name:
        for what, path, read in files(Path(name)):
            print(json.dumps({"what": f"damage: {what}", **count(path, read)}), flush=True)


def files(folder: Path) -> Iterator[tuple[str, Path, Callable[[], Any]]]:
    """Yield files of a run in ``folder``: the kind, the path, and a function that reads it."""
    run = expand.expand(parsing.parse(GRID, source="damage.yaml")).runs[-1]
    records.write_run(folder, run)
    records.write(folder, whole(run))
    readers: dict[str, Callable[[], Any]] = {
        "record.json": partial(records.read, folder, run.id),
        "run.json": partial(records.read_run, folder, run.id),
    }
    for name, read in readers.items():
        path = folder / run.id / name
        yield name, path, read
        values = json.loads(path.read_bytes())
        del values[checksums.KEY]
        path.write_text(json.dumps(values, indent=1) + "\n")
        yield f"{name} without a checksum", path, read


def whole(run: Run) -> records.Record:
    """Return a record whose accuracies are those of a whole number of images."""
    fields = json.loads(record(run.id, 0).to_json())
    fields["result"] |= {"test_acc": 75.21, "best_acc": 75.4}
    del fields[checksums.KEY]
    return records.Record.from_json(json.dumps(fields))


def count(path: Path, read: Callable[[], Any], every: int = 1) -> dict[str, int]:
    """Flip every bit of a file, or one of ``every`` so many.

    Returns:
        ``n``: the number of bits. ``accepted``: how many gave other values without an error.
        ``other_accuracy``: how many of these gave another test accuracy.
    """
    content = path.read_bytes()
    right = read()
    accepted = others = 0
    bits = range(0, 8 * len(content), every)
    for bit in bits:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with suppress(UserError):
            found = read()
            accepted += repr(found) != repr(right)
            others += accuracies(found) != accuracies(right)
    path.write_bytes(content)
    return {"n": len(bits), "accepted": accepted, "other_accuracy": others}


def accuracies(found: Any) -> Any:
    """Return the test accuracies of a record; None for anything else."""
    result = getattr(found, "result", None)
    return result and (result.test_acc, result.test_top5, result.best_acc, result.selected_acc)


if __name__ == "__main__":
    main()
