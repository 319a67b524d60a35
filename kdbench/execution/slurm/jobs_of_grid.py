"""The jobs of a grid, by the submissions in ``runs/``: whether there are any, and their end."""

from collections.abc import Sequence
from pathlib import Path

from kdbench.errors import UserError
from kdbench.execution.slurm import submissions
from kdbench.execution.slurm.scheduler import Scheduler, SchedulerError, check_commands
from kdbench.grid.run import Run


def jobs_known(expanded: Sequence[Run], runs: Path) -> bool:
    """Check whether a job may still train some of these runs."""
    ids = {run.id for run in expanded}
    return any(
        submission.job() is not None and not ids.isdisjoint(submission.ids(index))
        for submission in submissions.unfinished(runs)
        for index in range(len(submission.elements))
    )


def cancel(expanded: Sequence[Run], runs: Path, scheduler: Scheduler | None = None) -> list[str]:
    """Cancel the jobs that train these runs; checkpoints remain.

    Returns:
        The ids of the jobs.

    Raises:
        UserError: Slurm does not answer, or this machine lacks its commands.
    """
    ids = {run.id for run in expanded}
    names = []
    for submission in submissions.unfinished(runs):
        job = submission.job()
        for index in range(len(submission.elements)):
            name = submission.element(job, index)
            if name and ids & set(submission.ids(index)):
                names.append(name)
    if names:
        if scheduler is None:
            check_commands()
        try:
            (scheduler or Scheduler()).cancel(names)
        except SchedulerError as error:
            raise UserError(
                f"Slurm does not answer, jobs may continue; try again: {error}"
            ) from None
    return names
