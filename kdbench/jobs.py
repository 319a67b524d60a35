"""Which runs are missing, how they are grouped, and what a worker does.

The state of the world is what lies in ``runs/``: a worker walks over the cohorts, takes what nobody
holds, and goes on until nothing is left. So any number of workers and runners can work on one grid;
a run is trained by whoever holds its lease (``kdbench.lease``), which dies with its owner.
"""

import contextlib
import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from kdbench import lease, machine, records
from kdbench.errors import UserError
from kdbench.grid import Executor
from kdbench.lease import Lease, Owner
from kdbench.machine import Way
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
        workers: that share this machine. memory: bytes of main memory for each; None: unknown.
    """

    cohorts: tuple[tuple[Run, ...], ...]
    runs: Path
    data: Path
    executor: Executor
    workers: int = 1
    memory: float | None = None


def missing(expanded: Iterable[Run], runs: Path) -> list[Run]:
    """The runs that have no record yet, in their order."""
    return [run for run in expanded if not records.there(runs, run.id)]


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
        todo: what to train.
        most: learners in a cohort.
        workers: that work at the same time; with several, cohorts are made small enough that
            none stands idle while another finishes a long one.
        needs: what a run needs of a machine; runs that need different things are kept apart.
        fits: whether runs can train together in the memory there is; one alone always can.
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
        rest += dealt([run for run in group if run.id not in taught], size, fits)
    return first + rest


def dealt(
    runs: Sequence[Run], size: int, fits: Callable[[Sequence[Run]], bool]
) -> list[tuple[Run, ...]]:
    """Runs dealt out like cards, so that each cohort gets its share of the dear methods.

    Args:
        runs: to deal. size: most of a cohort. fits: whether runs can train together.
    """
    pieces = math.ceil(len(runs) / size)
    while not all(fits(runs[i::pieces]) for i in range(pieces)) and pieces < len(runs):
        pieces += 1
    return [tuple(runs[i::pieces]) for i in range(pieces)]


def workers(executor: Executor) -> int:
    """How many processes work at once on this machine."""
    if executor.kind == "debug":
        return 1
    if executor.workers:
        return executor.workers
    measured = tuned(executor)
    return _gpus(executor) or (
        measured[0].workers if measured else max(1, machine.cores() // executor.threads)
    )


def tuned(executor: Executor) -> tuple[Way, Way] | None:
    """Where ``workers`` follows what was measured on this machine: that way, and the best of all.

    It never follows in the number of threads, which would move numbers by rounding.
    """
    if executor.kind == "debug" or executor.workers or _gpus(executor):
        return None
    tuning = machine.load()
    way, best = (tuning.best(executor.threads), tuning.best()) if tuning else (None, None)
    return (way, best) if way and best else None


def _gpus(executor: Executor) -> int:
    """Number of GPUs to use, asked without importing torch where there is no driver at all."""
    if executor.device not in ("auto", "cuda"):
        return 0
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
            state = attempt(cohort, task, trainer)
            if state == "ended":
                pending.remove(cohort)
            busy = busy or state == "trained"
        if pending and not busy:
            time.sleep(0.2)  # somebody else trains what is left, or its teacher


def attempt(
    cohort: Sequence[Run], task: Work, trainer: "Trainer", owner: Owner | None = None
) -> str:
    """Train what can be trained of a cohort.

    Args:
        owner: who asks; None: this process.

    Returns:
        "ended": nothing is left to do. "trained": something was trained, or stopped. "waiting":
        for the teacher's record, or for somebody else who trains what is left.
    """
    with contextlib.ExitStack() as held:
        leases: dict[str, Lease] = {}
        who = owner or Owner.me()
        claim = partial(_claim, cohort, task, who, held, leases)
        state, mine = trainer.place.world.told(claim)
        if mine:
            trainer.train(mine, leases)
    return state


def _claim(
    cohort: Sequence[Run],
    task: Work,
    owner: Owner,
    held: contextlib.ExitStack,
    leases: dict[str, Lease],
) -> tuple[str, list[Run]]:
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
    for run in todo:
        got = lease.acquire(records.folder(task.runs, run.id), owner)
        if got is not None:
            held.callback(got.release)
            leases[run.id] = got
    mine = missing((run for run in todo if run.id in leases), task.runs)
    return ("trained" if mine else "waiting"), mine


def _lock(path: Path, held: contextlib.ExitStack) -> bool:
    """Take a lock for as long as ``held`` lives; False where another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        held.enter_context(FileLock(path).acquire(timeout=0))
    except Timeout:
        return False
    return True
