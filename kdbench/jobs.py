"""Which runs are missing, how they are grouped, and what a worker does.

The state of the world is what lies in ``runs/``: a worker walks over the cohorts, takes what nobody
holds, and goes on until nothing is left. So any number of workers and runners can work on one grid;
a run is trained by whoever holds its lock, and a lock dies with its process.
"""

import contextlib
import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from kdbench import records
from kdbench.errors import UserError
from kdbench.grid import Executor
from kdbench.run import Run

if TYPE_CHECKING:
    from kdbench.ranks import World
    from kdbench.trainer import Trainer


class JobError(UserError):
    """Training cannot go on for a reason that is no run's fault; one line."""


@dataclass(frozen=True)
class Work:
    """What a set of workers is to do.

    Attributes:
        cohorts: runs that train together, those that others learn from first.
        runs: folder of runs. data: folder of data sets. executor: how.
    """

    cohorts: tuple[tuple[Run, ...], ...]
    runs: Path
    data: Path
    executor: Executor


def missing(expanded: Iterable[Run], runs: Path) -> list[Run]:
    """The runs that have no record yet, in their order."""
    return [run for run in expanded if not (records.folder(runs, run.id) / "record.json").exists()]


def cohorts(todo: Sequence[Run], *, most: int, workers: int) -> list[tuple[Run, ...]]:
    """Group runs that can share a teacher's forward; teachers come first.

    Args:
        todo: what to train.
        most: learners in a cohort.
        workers: that work at the same time; with several, cohorts are made small enough that
            none stands idle while another finishes a long one.
    """
    taught = {run.teacher.run for run in todo if run.teacher}
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in todo:
        groups[run.shared].append(run)
    size = most
    if workers > 1:
        learners = sum(1 for run in todo if run.id not in taught)
        size = min(most, max(1, math.ceil(learners / (4 * workers))))
    first: list[tuple[Run, ...]] = []
    rest: list[tuple[Run, ...]] = []
    for group in groups.values():
        teachers = [run for run in group if run.id in taught]
        first += [(run,) for run in teachers]
        others = [run for run in group if run.id not in taught]
        pieces = math.ceil(len(others) / size)
        # Dealt out like cards: each piece gets its share of the dear methods.
        rest += [tuple(others[i::pieces]) for i in range(pieces)]
    return first + rest


def workers(executor: Executor) -> int:
    """How many processes work at once on this machine."""
    if executor.kind == "debug":
        return 1
    if executor.workers:
        return executor.workers
    gpus = _gpus() if executor.device in ("auto", "cuda") else 0
    return gpus or max(1, len(os.sched_getaffinity(0)) // executor.threads)


def _gpus() -> int:
    """Number of GPUs, asked without importing torch where there is no driver at all."""
    if not Path("/proc/driver/nvidia").exists() and "CUDA_VISIBLE_DEVICES" not in os.environ:
        return 0
    import torch

    return torch.cuda.device_count()


# --- a worker -----------------------------------------------------------------------------------


def work(
    task: Work,
    number: int,
    stop: Callable[[], bool],
    tell: Callable[..., None],
    world: "World | None" = None,
) -> None:
    """Train cohorts until none is left that this worker could train.

    Args:
        task: what to do.
        number: of this worker, from 0; chooses its GPU.
        stop: asked after every step whether to stop.
        tell: given heartbeats and lines.
        world: the ranks that are this worker together, where they are several: each of them calls
            this, inside ``ranks.joined``; the first takes the locks and writes.

    Raises:
        JobError: data missing, disk full: something that ends all runs alike.
        RankLost: another rank died: so does this worker, and what it held goes on in another.
    """
    from kdbench.ranks import ALONE  # both import torch
    from kdbench.trainer import Trainer

    world = world or ALONE
    trainer = Trainer(task, number, stop, tell, world)
    pending = list(task.cohorts)
    while pending and not world.any(stop())[0]:
        busy = False
        for cohort in list(pending):
            if world.any(stop())[0]:
                break
            state = _try(cohort, task, trainer)
            if state == "ended":
                pending.remove(cohort)
            busy = busy or state == "trained"
        if pending and not busy:
            time.sleep(0.2)  # somebody else trains what is left, or its teacher


def _try(cohort: Sequence[Run], task: Work, trainer: "Trainer") -> str:
    """Train what can be trained of a cohort: "ended", "trained" or "waiting"."""
    with contextlib.ExitStack() as held:
        state, mine = trainer.place.world.told(lambda: _claim(cohort, task, held))
        if mine:
            trainer.train(mine)
    return state


def _claim(cohort: Sequence[Run], task: Work, held: contextlib.ExitStack) -> tuple[str, list[Run]]:
    """Take the runs of a cohort that can be trained, and say what state that makes."""
    todo = missing(cohort, task.runs)
    if not todo:
        return "ended", []
    teacher = todo[0].teacher
    if teacher:
        record = records.read(task.runs, teacher.run)
        if record is None:
            return "waiting", []
        if record.status != "done":
            return "ended", []  # blocked: status and tables say so
    if not _lock(task.runs / ".cohorts" / f"{cohort[0].id}.lock", held):
        return "waiting", []
    mine = [run for run in todo if _lock(records.folder(task.runs, run.id) / "lock", held)]
    mine = missing(mine, task.runs)
    return ("trained" if mine else "waiting"), mine


def _lock(path: Path, held: contextlib.ExitStack) -> bool:
    """Take a lock for as long as ``held`` lives; False where another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        held.enter_context(FileLock(path).acquire(timeout=0))
    except Timeout:
        return False
    return True
