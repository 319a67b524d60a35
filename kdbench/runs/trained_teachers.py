"""Trained teachers that a grid names by their runs' ids: whether they are there and fit."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kdbench.grid.dataset_facts import DATASETS, ImageShape
from kdbench.grid.grid import Grid, GridError
from kdbench.runs import records
from kdbench.runs.records import RecordError


def check_teachers(grid: Grid, runs: Path) -> None:
    """Whether the trained teachers that a grid names lie in ``runs`` and fit.

    Raises:
        GridError: what does not, one line each.
    """
    dataset = grid.teacher.dataset or grid.dataset
    errors = [
        f"{grid.source}: teachers.{arch}: {run_id}: {problem}"
        for arch, run_id in grid.teachers.items()
        for problem in _misfit(runs, arch, run_id, DATASETS[dataset.name].shape)
    ]
    if errors:
        raise GridError(errors)


def read_run_json(runs: Path, run_id: str) -> dict[str, Any]:
    """What a run's, or an imported teacher's, ``run.json`` says.

    Raises:
        RecordError: there is none, or it is damaged.
    """
    path = records.folder(runs, run_id) / "run.json"
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise RecordError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: {error}") from error
    if not isinstance(values, dict):
        raise RecordError(f"{path}: not a run")
    return values


def _misfit(runs: Path, arch: str, run_id: str, shape: ImageShape | None) -> Iterator[str]:
    """Yield the reasons why a run cannot be the teacher of an architecture on images of a shape."""
    record = records.read(runs, run_id)
    if record is None:
        yield f"no such run in {runs}; `kdbench teacher import` and `kdbench status` tell ids"
        return
    if record.status != "done":
        yield f"this run is {record.status}: {record.reason}"
    run = read_run_json(runs, run_id)
    if run.get("student") != arch:
        yield f"this run trained a {run.get('student')}"
    name = run.get("dataset", {}).get("name")
    trained = DATASETS[name].shape if name in DATASETS else None
    if not (shape and trained):
        return
    if (shape.channels, shape.classes) != (trained.channels, trained.classes):
        yield (
            f"trained on {name}, with {trained.classes} classes and {trained.channels} channels, "
            f"not {shape.classes} and {shape.channels}"
        )
