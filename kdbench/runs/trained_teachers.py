"""Check the trained teachers that a grid names by run id."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from kdbench.grid.dataset_facts import DATASETS, ImageShape
from kdbench.grid.grid import Grid, GridError
from kdbench.grid.run import Cell
from kdbench.grid.settings import Dataset
from kdbench.runs import records
from kdbench.runs.data_digests import choice_of_test_images
from kdbench.runs.records import Record


def check_teachers(grid: Grid, runs: Path) -> None:
    """Check that the trained teachers a grid names exist in ``runs`` and fit its networks and data.

    Raises:
        GridError: one line per problem.
    """
    dataset = grid.teacher.dataset or grid.dataset.labelled
    errors = [
        f"{grid.source}: teachers.{arch}: {run_id}: {problem}"
        for arch, run_id in grid.teachers.items()
        for problem in _misfit(runs, arch, run_id, DATASETS[dataset.name].shape)
    ]
    if errors:
        raise GridError(errors)


def leave_out_foreign_accuracies(
    grid: Grid, cells: Iterable[Cell], by_id: dict[str, Record], runs: Path
) -> None:
    """Remove the accuracies of teachers that were measured on other test images than the grid's.

    Earlier versions stored in the students' records the accuracy in the teacher's record, whatever
    data that was measured on. This version measures it again where the data differ.

    Args:
        grid: the grid; only the trained teachers that it names are checked.
        cells: its cells.
        by_id: their records, which this changes.
        runs: folder of runs.
    """
    foreign = {
        (run_id, acc)
        for run_id in grid.teachers.values()
        if (acc := _foreign_accuracy(runs, run_id, grid.dataset)) is not None
    }
    for run in (run for cell in cells for run in cell.runs if foreign):
        record = by_id.get(run.id)
        result = record.result if record else None
        if record and result and run.teacher and (run.teacher.run, result.teacher_acc) in foreign:
            by_id[run.id] = replace(record, result=replace(result, teacher_acc=None))


def _foreign_accuracy(runs: Path, run_id: str, dataset: Dataset) -> float | None:
    """Return the accuracy in a teacher's record if it is on other test images, else None.

    Raises:
        RecordError: the record or the run's settings are damaged.
    """
    record = records.read(runs, run_id)
    if record is None or record.result is None:
        return None  # a report does not need the teacher's files
    values = records.read_run_json(runs, run_id).get("dataset")
    try:
        trained_on = Dataset(**values) if values else dataset
    except (TypeError, ValueError) as error:
        path = records.folder(runs, run_id) / "run.json"
        raise records.RecordError(f"{path}: dataset: {' '.join(str(error).split())}") from error
    same = choice_of_test_images(trained_on) == choice_of_test_images(dataset)
    return None if same else record.result.test_acc


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
