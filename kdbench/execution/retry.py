"""Set failed records aside, so that their runs are missing again."""

from collections.abc import Iterable
from pathlib import Path

from kdbench.grid.expand import Expansion
from kdbench.grid.run import Run
from kdbench.runs import records
from kdbench.runs.records import RecordError


def forget(expansion: Expansion, runs: Path, wanted: Iterable[str]) -> list[Run]:
    """Put aside the records with these statuses, and damaged ones: their runs are missing again.

    A teacher whose checkpoint is damaged or gone is of use to nobody: it is trained again, too.
    """
    wanted = set(wanted)
    taught = {run.teacher.run for run in expansion.runs if run.teacher}
    forgotten = []
    for run in expansion.runs:
        try:
            record = records.read(runs, run.id)
            bad = record is not None and record.status in wanted
            done = record is not None and record.status == "done"
        except RecordError:
            bad, done = True, False
        if bad or (done and run.id in taught and not _usable(runs, run)):
            path = records.folder(runs, run.id) / "record.json"
            path.replace(path.with_name("record.previous.json"))
            forgotten.append(run)
    return forgotten


def _usable(runs: Path, run: Run) -> bool:
    """Whether the network that a run left can be read."""
    from kdbench.training.checkpoint import CheckpointDamaged, read  # imports torch

    try:
        return "model" in read(records.folder(runs, run.id) / "checkpoint.pt")
    except CheckpointDamaged:
        return False
