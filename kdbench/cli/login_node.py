"""Login nodes of Slurm clusters, which are shared: large grids train there only on request."""

import os
from collections.abc import Iterable
from pathlib import Path

from kdbench.errors import UserError
from kdbench.execution.slurm.scheduler import Scheduler, SchedulerError, has_slurm
from kdbench.execution.work import missing
from kdbench.grid.dataset_facts import DATASETS
from kdbench.grid.grid import Executor
from kdbench.grid.run import Run
from kdbench.wording import counted

SMALL = 1e11
"""Pixels that a grid may process there; the quick grid needs a few per cent of them."""
UNKNOWN = (50_000, 32)
"""Images and their size in a user's data set, which is not read here."""


def check(
    executor: Executor, expanded: Iterable[Run], runs: Path, source: str, *, asked: bool
) -> None:
    """Refuse to train a large grid on a login node unless the user asked for this machine.

    A login node is a machine on which Slurm answers, outside a job.

    Args:
        executor: of the grid, with the command's options.
        expanded: the grid's runs.
        runs: folder of runs.
        source: the grid's file, for messages.
        asked: whether the command names an executor.

    Raises:
        UserError: it names the options that decide.
    """
    if asked or executor.kind == "slurm" or "SLURM_JOB_ID" in os.environ or not has_slurm():
        return
    todo = missing(expanded, runs)
    if sum(map(_pixels, todo)) <= SMALL or not _answers():
        return
    raise UserError(
        f"{source}: Slurm answers here and this is not a job, so a grid of "
        f"{counted(len(todo), 'run')} is not trained on this machine unasked: --executor slurm "
        "submits it, --executor local trains it here"
    )


def _pixels(run: Run) -> float:
    """Return how many pixels a training processes."""
    facts = DATASETS[run.dataset.name]
    images, size = (facts.train_images, facts.shape.size) if facts.shape else UNKNOWN
    if run.dataset.per_class and facts.shape:
        images = run.dataset.per_class * facts.shape.classes
    transfer = run.dataset.transfer
    if transfer:
        known = DATASETS[transfer.name].train_images if transfer.name in DATASETS else images
        images = transfer.images or known or UNKNOWN[0]
    return float(run.training.epochs) * images * (run.dataset.size or size) ** 2


def _answers() -> bool:
    try:
        return bool(Scheduler().ask("sinfo", "--noheader", timeout=5.0).strip())
    except SchedulerError:
        return False
