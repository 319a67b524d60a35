"""The runs that are missing, their grouping into cohorts, and the number of workers.

All state is in ``runs/``: each worker goes over the cohorts and trains the runs that no other
process holds, until none is left. So any number of workers and runners can share a grid. A run is
trained by the process that holds its lease (``kdbench.runs.lease``), which ends with that process.
"""

import math
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdbench import files
from kdbench.cost import saved_tuning
from kdbench.cost.saved_tuning import MeasuredSplit
from kdbench.errors import UserError
from kdbench.grid.grid import Executor
from kdbench.grid.run import Run
from kdbench.grid.settings import Dataset
from kdbench.runs import data_digests, environment, records
from kdbench.runs.data_digests import MadeOf

DRIVER = (Path("/proc/driver/nvidia"), Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""Files of NVIDIA's driver: on Linux, in containers that hide ``/proc/driver``, and on WSL."""


class JobError(UserError):
    """Training cannot continue, for a reason that affects all runs; one line."""


@dataclass(frozen=True)
class Work:
    """The task of a group of workers.

    Attributes:
        cohorts: groups of runs that train together, teachers first.
        runs: folder of runs.
        data: folder of data sets.
        executor: settings of the grid.
        workers: number of workers that share this machine.
        memory: bytes of main memory for each worker; None: unknown.
        made_of: the data that the grid's recorded runs were made of.
    """

    cohorts: tuple[tuple[Run, ...], ...]
    runs: Path
    data: Path
    executor: Executor
    workers: int = 1
    memory: float | None = None
    made_of: Mapping[Dataset, MadeOf] = field(default_factory=dict)


def check_writable(runs: Path) -> None:
    """Create the folder of runs, and check that it can be written.

    Raises:
        JobError: the folder cannot be written.
    """
    try:
        files.check_writable(runs)
    except OSError as error:
        raise JobError(f"{runs}: cannot be written: {error.strerror}") from None


def missing(expanded: Iterable[Run], runs: Path) -> list[Run]:
    """Return the runs that have no record yet, in their order."""
    return [run for run in expanded if not records.has_record(runs, run.id)]


def made_of(expanded: Sequence[Run], runs: Path) -> dict[Dataset, MadeOf]:
    """Return the data that recorded runs were made of, which missing runs must be trained on.

    Raises:
        DataChanged: recorded runs on one data set were made of different data.
        RecordError: a record is damaged.
    """
    loaded = records.load(runs, (run.id for run in expanded))
    return data_digests.recorded(str(runs), expanded, loaded)


def cohorts(
    todo: Sequence[Run],
    *,
    most: int,
    workers: int,
    needs: Callable[[Run], Hashable] = lambda run: None,
    fits: Callable[[Sequence[Run]], bool] = lambda runs: True,
) -> list[tuple[Run, ...]]:
    """Group runs that can share a teacher's forward; teachers come first.

    Args:
        todo: runs to train.
        most: largest number of learners in a cohort.
        workers: number of workers. With several, cohorts are kept small enough that no worker is
            idle while another finishes a long cohort.
        needs: returns a run's resources; runs with different resources are kept apart.
        fits: checks whether runs can train together in the available memory.
    """
    taught = {run.teacher.run for run in todo if run.teacher}
    groups: dict[tuple[str, Hashable], list[Run]] = defaultdict(list)
    for run in todo:
        groups[run.shared, needs(run)].append(run)
    size = most
    if workers > 1:
        learners = sum(1 for run in todo if run.id not in taught)
        size = min(most, max(1, math.ceil(learners / (4 * workers))))
    first: list[tuple[Run, ...]] = []
    rest: list[tuple[Run, ...]] = []
    for group in groups.values():
        first += [(run,) for run in group if run.id in taught]
        rest += split_round_robin([run for run in group if run.id not in taught], size, fits)
    return first + rest


def split_round_robin(
    runs: Sequence[Run], size: int, fits: Callable[[Sequence[Run]], bool]
) -> list[tuple[Run, ...]]:
    """Split runs round-robin, so that expensive methods spread over the cohorts.

    Args:
        size: largest number of runs in a cohort.
        fits: checks whether runs can train together; a single run need not fit.
    """
    pieces = math.ceil(len(runs) / size)
    while not all(fits(runs[i::pieces]) for i in range(pieces)) and pieces < len(runs):
        pieces += 1
    return [tuple(runs[i::pieces]) for i in range(pieces)]


def workers(executor: Executor) -> int:
    """Return the number of workers on this machine."""
    if executor.kind == "debug":
        return 1
    if executor.workers:
        return executor.workers
    measured = tuned(executor)
    return _gpus(executor) or (
        measured[0].workers if measured else max(1, environment.cores() // executor.threads)
    )


def tuned(executor: Executor) -> tuple[MeasuredSplit, MeasuredSplit] | None:
    """Return the measured split of cores that ``workers`` follows, and the fastest split.

    The number of threads is always the grid's: another number would change results by rounding.

    Returns:
        None if the grid sets the number of workers, on GPUs, and without a measurement.
    """
    if executor.kind == "debug" or executor.workers or _gpus(executor):
        return None
    tuning = saved_tuning.load()
    split, best = (tuning.best(executor.threads), tuning.best()) if tuning else (None, None)
    return (split, best) if split and best else None


def _gpus(executor: Executor) -> int:
    """Return the number of GPUs to use; imports torch only if there may be any."""
    if executor.device.startswith("cuda:"):
        return 1
    if executor.device == "cpu" or (executor.device == "auto" and not may_have_gpus()):
        return 0
    import torch

    return torch.cuda.device_count()


def may_have_gpus() -> bool:
    """Check for signs of NVIDIA's driver, which torch could use; does not import torch."""
    signs = any(path.exists() for path in DRIVER)
    return signs or "CUDA_VISIBLE_DEVICES" in os.environ or bool(shutil.which("nvidia-smi"))
