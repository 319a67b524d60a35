"""Which runs wait in Slurm's queue, for ``kdbench status``."""

from pathlib import Path

from kdbench.slurm import ledger
from kdbench.slurm.scheduler import Scheduler, SchedulerError, there

SECONDS = 10.0


def queued(runs: Path, scheduler: Scheduler | None = None) -> set[str]:
    """Ids of runs that a job is to train, as squeue says; as was submitted, if it does not answer.

    Asks Slurm nothing where nothing was submitted.
    """
    submissions = [one for one in ledger.unfinished(runs) if one.job()]
    if not submissions:
        return set()
    listed = None
    if scheduler or there():
        try:
            listed = (scheduler or Scheduler()).queue(timeout=SECONDS)
        except SchedulerError:
            listed = None
    return {
        run_id
        for one in submissions
        for index in range(len(one.elements))
        if listed is None or one.element_id(index) in listed
        for run_id in one.ids(index)
    }
