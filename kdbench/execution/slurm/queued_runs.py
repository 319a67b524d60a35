"""Which runs wait in Slurm's queue, for ``kdbench status``."""

import time
from pathlib import Path

from kdbench.execution.slurm import submissions as ledger
from kdbench.execution.slurm.scheduler import Scheduler, SchedulerError, has_slurm

SECONDS = 10.0
AGAIN_SECONDS = 15.0
"""Between two calls, however often somebody who watches asks."""

_last: list[tuple[float, set[str] | None]] = []


def queued(runs: Path, scheduler: Scheduler | None = None) -> set[str]:
    """Ids of runs that a job is to train, as squeue says; as was submitted, if it does not answer.

    Asks Slurm nothing where nothing was submitted.
    """
    submissions = [(one, job) for one in ledger.unfinished(runs) if (job := one.job())]
    if not submissions:
        return set()
    listed = _listed(scheduler)
    return {
        run_id
        for one, job in submissions
        for index in range(len(one.elements))
        if listed is None or one.element(job, index) in listed
        for run_id in one.ids(index)
    }


def _listed(scheduler: Scheduler | None) -> set[str] | None:
    """The jobs that squeue lists; None where it does not say."""
    if scheduler is None and not has_slurm():
        return None
    if not _last or time.monotonic() - _last[0][0] >= AGAIN_SECONDS:
        try:
            found: set[str] | None = set((scheduler or Scheduler()).queue(timeout=SECONDS))
        except SchedulerError:
            found = None
        _last[:] = [(time.monotonic(), found)]
    return _last[0][1]
