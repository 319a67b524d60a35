"""The runs in Slurm's queue, for ``kdbench status``."""

import time
from pathlib import Path

from kdbench.execution.slurm import submissions
from kdbench.execution.slurm.scheduler import Scheduler, SchedulerError, has_slurm

TIMEOUT_SECONDS = 10.0
AGAIN_SECONDS = 15.0
"""Shortest time between two calls of squeue."""

_last: list[tuple[float, set[str] | None]] = []


def queued(runs: Path, scheduler: Scheduler | None = None) -> set[str]:
    """Return the ids of the runs that a job in squeue is to train.

    If squeue does not answer, all submitted runs count. Without submissions, Slurm is not queried.
    """
    jobs = [
        (submission, job)
        for submission in submissions.unfinished(runs)
        if (job := submission.job())
    ]
    if not jobs:
        return set()
    listed = _listed(scheduler)
    return {
        run_id
        for submission, job in jobs
        for index in range(len(submission.elements))
        if listed is None or submission.element(job, index) in listed
        for run_id in submission.ids(index)
    }


def _listed(scheduler: Scheduler | None) -> set[str] | None:
    """Return the jobs that squeue lists; None if it does not answer."""
    if scheduler is None and not has_slurm():
        return None
    if not _last or time.monotonic() - _last[0][0] >= AGAIN_SECONDS:
        try:
            jobs: set[str] | None = set((scheduler or Scheduler()).queue(timeout=TIMEOUT_SECONDS))
        except SchedulerError:
            jobs = None
        _last[:] = [(time.monotonic(), jobs)]
    return _last[0][1]
