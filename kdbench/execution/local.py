"""The runner that trains a grid's missing runs with workers on this machine.

It reads progress from ``runs/`` only, so it also reports runs that other processes train.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

from kdbench.cost.saved_tuning import MeasuredSplit
from kdbench.execution import crashes
from kdbench.execution.devices import check_possible, choose_device
from kdbench.execution.events import Event
from kdbench.execution.work import JobError, Work, check_writable, cohorts, missing, tuned, workers
from kdbench.execution.worker import Worker
from kdbench.grid.grid import Executor
from kdbench.grid.run import Run
from kdbench.runs import heartbeat, records
from kdbench.runs.records import Record
from kdbench.training import device
from kdbench.training.memory import free_memory

CRASHES = 3
"""A run is recorded as failed after this many deaths of its worker."""


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
    task = Work(tuple(groups), runs, data, executor, n, free / n if free else None)
    if measured := tuned(executor):
        yield Event(left=len(todo), line=_describe_split(*measured))
    if executor.kind == "debug":
        yield from _train_in_thread(task, todo)
    else:
        yield from _Pool(task, n, todo).events()


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

    def target() -> None:
        try:
            Worker(task, 0, stopping.is_set, lambda beats, line: None).run()
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=target, name="trainer")
    thread.start()
    try:
        yield from _watch(todo, task.runs, thread.is_alive)
    finally:
        stopping.set()
        thread.join()
    if not failure:
        return
    if device.lost(failure[0]):
        raise JobError(
            f"{crashes.gpu_refuses(failure[0])}; with executor.kind: local, the other runs go on"
        ) from failure[0]
    raise failure[0]


def _watch(todo: Sequence[Run], runs: Path, alive: Callable[[], bool]) -> Iterator[Event]:
    """Yield the progress of ``runs`` while workers are alive, and once more after the end."""
    pending = {run.id: run for run in todo}
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
        yield Event(tuple(ended), beats, len(pending))
        if training:
            time.sleep(max(0.3, 3 * (time.monotonic() - began)))


class _Pool:
    """Worker processes, which are restarted when they die."""

    def __init__(self, task: Work, n: int, todo: Sequence[Run]) -> None:
        self.task, self.todo = task, todo
        self.context = multiprocessing.get_context("spawn")
        self.deaths: Counter[str] = Counter()
        self.idle_deaths = 0
        self.lines: list[str] = []
        self.fatal = False
        self.processes = {number: self._start(number) for number in range(n)}

    def _start(self, number: int) -> BaseProcess:
        process = self.context.Process(
            target=_run_worker, args=(self.task, number, os.getpid()), name=f"worker-{number}"
        )
        # The child inherits these variables; torch reads them when it is imported there.
        threads = str(self.task.executor.threads)
        with _environment(OMP_NUM_THREADS=threads, MKL_NUM_THREADS=threads):
            process.start()
        return process

    def events(self) -> Iterator[Event]:
        try:
            for event in _watch(self.todo, self.task.runs, self._alive):
                lines, self.lines = self.lines, []
                yield replace(event, line="\n".join(lines))
        finally:
            self._end()
        if self.fatal:
            raise JobError("a worker could not continue; the line above gives the reason")

    def _alive(self) -> bool:
        """Check whether any worker is alive; restart those that died."""
        for number, process in list(self.processes.items()):
            if process.is_alive():
                continue
            process.join()
            del self.processes[number]
            # Such a worker has printed the reason, which would stop any other worker too.
            if process.exitcode in (1, 2):
                self.fatal = True
                for other in self.processes.values():
                    other.terminate()
            elif process.exitcode != 0 and not self.fatal:
                self._handle_death(process)
                if not self.fatal:
                    self.processes[number] = self._start(number)
        return bool(self.processes)

    def _handle_death(self, process: BaseProcess) -> None:
        """Count a death for each run of a dead worker; a run fails after ``CRASHES`` of them."""
        number = crashes.number(process.exitcode or 0)
        how = crashes.cause(number) if number else f"exit code {process.exitcode}"
        self.lines.append(f"worker {process.pid} died of {how}; its runs resume in another worker")
        held = [
            run
            for run in missing(self.todo, self.task.runs)
            if (beat := heartbeat.read(self.task.runs, run.id, fresh=False))
            and beat.pid == process.pid
        ]
        self.idle_deaths += not held
        if self.idle_deaths >= CRASHES:
            self.fatal = True
        for run in held:
            self.deaths[run.id] += 1
            if self.deaths[run.id] >= CRASHES:
                reason = f"its worker died {CRASHES} times, last of {how}"
                reason += crashes.remedy(number, run)
                records.write(self.task.runs, Record(run.id, "failed", reason))
                heartbeat.clear(self.task.runs, run.id)
        # Runs that a dead worker held restart one by one, so that only the faulty one fails again.
        suspects = [(run,) for run in self.todo if self.deaths[run.id]]
        others = [
            tuple(run for run in cohort if not self.deaths[run.id]) for cohort in self.task.cohorts
        ]
        self.task = replace(self.task, cohorts=(*suspects, *filter(None, others)))

    def _end(self) -> None:
        for process in self.processes.values():
            process.terminate()  # the worker saves and exits at the end of its step
        for process in self.processes.values():
            process.join()


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _run_worker(task: Work, number: int, parent: int) -> None:
    """Train in a worker process until a signal arrives or the parent process has ended."""
    stopping = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stopping.set())

    def stop() -> bool:
        return stopping.is_set() or os.getppid() != parent

    try:
        Worker(task, number, stop, lambda beats, line: None).run()
    except JobError as error:
        sys.stderr.write(f"kdbench: {error}\n")
        sys.exit(2)
    except BaseException as error:
        if not device.lost(error):
            raise
        sys.stderr.write(f"kdbench: {crashes.gpu_refuses(error)}\n")
        sys.stderr.flush()
        os._exit(crashes.DEVICE_LOST)  # the usual end of a process would wait for the GPU
