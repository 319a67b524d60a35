"""Check the trained teachers that a grid names by run id."""

from collections.abc import Iterator
from pathlib import Path

from kdbench.grid.dataset_facts import DATASETS, ImageShape
from kdbench.grid.grid import Grid, GridError
from kdbench.runs import records


def check_teachers(grid: Grid, runs: Path) -> None:
    """Check that the trained teachers a grid names exist in ``runs`` and fit its networks and data.

    Raises:
        GridError: one line per problem.
    """
    dataset = grid.teacher.dataset or grid.dataset
    errors = [
        f"{grid.source}: teachers.{arch}: {run_id}: {problem}"
        for arch, run_id in grid.teachers.items()
        for problem in _misfit(runs, arch, run_id, DATASETS[dataset.name].shape)
    ]
    if errors:
        raise GridError(errors)


def _misfit(runs: Path, arch: str, run_id: str, shape: ImageShape | None) -> Iterator[str]:
    """Yield the reasons why a run cannot be the teacher of an architecture on images of a shape."""
    record = records.read(runs, run_id)
    if record is None:
        yield f"no such run in {runs}; `kdbench teacher import` and `kdbench status` tell ids"
        return
    if record.status != "done":
        yield f"this run is {record.status}: {record.reason}"
    run = records.read_run_json(runs, run_id)
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
