"""Removal of failed records, so that their runs are trained again."""

from collections.abc import Iterable
from pathlib import Path

from kdbench.grid.expand import Expansion
from kdbench.grid.run import Run
from kdbench.runs import records
from kdbench.runs.records import RecordError


def forget(expansion: Expansion, runs: Path, statuses: Iterable[str]) -> list[Run]:
    """Rename damaged records and those with certain statuses, so that their runs are missing.

    The records of teachers whose checkpoint is missing or damaged are renamed too, since no
    student could learn from them.

    Returns:
        The runs that are missing now.
    """
    statuses = set(statuses)
    taught = {run.teacher.run for run in expansion.runs if run.teacher}
    forgotten = []
    for run in expansion.runs:
        try:
            record = records.read(runs, run.id)
            bad = record is not None and record.status in statuses
            done = record is not None and record.status == "done"
        except RecordError:
            bad, done = True, False
        if bad or (done and run.id in taught and not _usable(runs, run)):
            path = records.folder(runs, run.id) / "record.json"
            path.replace(path.with_name("record.previous.json"))
            forgotten.append(run)
    return forgotten


def _usable(runs: Path, run: Run) -> bool:
    """Check whether a run's trained network can be loaded."""
    from kdbench.training.checkpoint import CheckpointDamaged, read  # imports torch

    try:
        return "model" in read(records.folder(runs, run.id) / "checkpoint.pt")
    except CheckpointDamaged:
        return False
