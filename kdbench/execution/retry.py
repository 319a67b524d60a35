"""Removal of failed records, so that their runs are trained again."""

from collections.abc import Iterable
from pathlib import Path

from kdbench.grid.expand import Expansion
from kdbench.grid.run import Run
from kdbench.runs import records
from kdbench.runs.records import Record, RecordError


def forget(expansion: Expansion, runs: Path, statuses: Iterable[str]) -> list[Run]:
    """Rename damaged records and those with certain statuses, so that their runs are missing.

    The records of teachers whose checkpoint is missing, damaged or not the one that the record
    describes are renamed too, since no student could learn from them. Such a checkpoint stays if
    training can resume from it, and is renamed otherwise.

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
            record, bad, done = None, True, False
        if record is not None and done and run.id in taught:
            bad = bad or not _mend_checkpoint(runs, record)
        if bad:
            path = records.folder(runs, run.id) / "record.json"
            path.replace(path.with_name("record.previous.json"))
            forgotten.append(run)
    return forgotten


def _mend_checkpoint(runs: Path, record: Record) -> bool:
    """Return False if a run's trained network is not there, so that it has to be trained again."""
    from kdbench.training import checkpoint  # imports torch

    path = records.folder(runs, record.run) / checkpoint.NAME
    try:
        checkpoint.trained(path, record)
    except checkpoint.OtherWeights:
        # A backup, or another machine's copy: training must not end with it.
        if "optimizer" not in checkpoint.read(path):
            path.replace(path.with_name("checkpoint.other.pt"))
        return False
    except checkpoint.CheckpointDamaged:
        return False
    return True
