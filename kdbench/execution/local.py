"""The runner that trains a grid's missing runs with workers on this machine.

It reads progress from ``runs/`` only, so it also reports runs that other processes train.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from kdbench.cost.saved_tuning import MeasuredSplit
from kdbench.execution import crashes
from kdbench.execution.devices import check_possible, choose_device
from kdbench.execution.events import Event
from kdbench.execution.pool import Pool
from kdbench.execution.stopping_reason import stopping_reason
from kdbench.execution.waiting import Waiting
from kdbench.execution.work import (
    JobError,
    Work,
    check_writable,
    cohorts,
    made_of,
    missing,
    tuned,
    workers,
)
from kdbench.execution.worker import Worker
from kdbench.grid.grid import Executor
from kdbench.grid.run import Run
from kdbench.runs import heartbeat, records
from kdbench.runs.owner import Owner
from kdbench.training import device
from kdbench.training.memory import free_memory


def run_all(expanded: Sequence[Run], runs: Path, data: Path, executor: Executor) -> Iterator[Event]:
    """Train the runs without a record, and yield progress reports.

    Closing the iterator stops the workers at the end of their step, with checkpoints.

    Raises:
        JobError: training cannot continue; records and checkpoints are intact.
    """
    if executor.ranks > 1:
        raise JobError(
            f"executor.ranks: {executor.ranks}: a worker on this machine trains on one GPU; "
            "expected 1, or kind: slurm"
        )
    check_writable(runs)
    todo = missing(expanded, runs)
    if not todo:
        return
    chosen = choose_device(executor.device)
    if chosen.type == "cpu":  # a worker checks its GPU, so that this process needs none
        check_possible(todo, executor, chosen)
    n = workers(executor)
    groups = cohorts(todo, most=executor.cohort, workers=n)
    n = min(n, len(groups))
    free = free_memory()
    task = Work(
        tuple(groups), runs, data, executor, n, free / n if free else None, made_of(expanded, runs)
    )
    if measured := tuned(executor):
        yield Event(left=len(todo), line=_describe_split(*measured))
    if executor.kind == "debug":
        yield from _train_in_thread(task, todo)
    else:
        yield from _train_in_processes(task, n, todo)


def _describe_split(split: MeasuredSplit, best: MeasuredSplit) -> str:
    """Report that ``split`` was chosen by a measurement, and that a grid may choose ``best``."""
    line = f"executor: {split}, as measured by kdbench doctor --tune on this machine"
    if best.threads == split.threads:
        return line
    times = best.steps_per_s / split.steps_per_s
    return (
        f"{line}; {best} was {times:.2f} times as fast, but rounds differently: set it in the grid "
        "to use it"
    )


def _train_in_thread(task: Work, todo: Sequence[Run]) -> Iterator[Event]:
    """Train in a thread of this process, and yield progress reports meanwhile."""
    stopping = threading.Event()
    failure: list[BaseException] = []
    me = Owner.me().process

    def target() -> None:
        try:
            Worker(task, 0, stopping.is_set, lambda beats, line: None).run()
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=target, name="trainer")
    thread.start()
    try:
        yield from _watch(todo, task.runs, thread.is_alive, lambda: (me,))
    finally:
        stopping.set()
        thread.join()
    if not failure:
        return
    if device.lost(failure[0]):
        raise JobError(
            f"{crashes.gpu_refuses(failure[0])}; with executor.kind: local, the other runs continue"
        ) from failure[0]
    if reason := stopping_reason(failure[0]):
        raise JobError(reason) from failure[0]
    raise failure[0]


def _watch(
    todo: Sequence[Run], runs: Path, alive: Callable[[], bool], mine: Callable[[], Collection[str]]
) -> Iterator[Event]:
    """Yield the progress of ``runs`` while workers are alive, and once more after the end.

    Args:
        mine: returns the identities of the workers of this runner (``Owner.process``).
    """
    pending = {run.id: run for run in todo}
    waiting = Waiting(runs)
    training = True
    while training:
        began = time.monotonic()
        training = alive()
        ended = []
        for run_id, run in list(pending.items()):
            record = records.read(runs, run_id)
            if record is not None:
                ended.append((run, record))
                del pending[run_id]
        beats = tuple(heartbeat.load(runs, pending).values()) if training else ()
        line = waiting.line(pending.values(), mine()) if training else ""
        yield Event(tuple(ended), beats, len(pending), line)
        if training:
            time.sleep(max(0.3, 3 * (time.monotonic() - began)))


def _train_in_processes(task: Work, n: int, todo: Sequence[Run]) -> Iterator[Event]:
    """Train in ``n`` worker processes, and yield progress reports meanwhile."""
    pool = Pool(task, n, todo)
    try:
        for event in _watch(todo, task.runs, pool.alive, pool.processes_of_workers):
            lines, pool.lines = [*pool.lines, event.line], []
            yield replace(event, line="\n".join(filter(None, lines)))
    finally:
        pool.end()
    if pool.fatal:
        raise JobError("a worker could not continue; the line above gives the reason")
