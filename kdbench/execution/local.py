"""A runner: gets a grid's missing runs trained by workers on this machine, and tells what happens.

It looks at ``runs/`` only; whoever else works there is seen just the same.
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
from kdbench.execution.events import Event
from kdbench.execution.work import JobError, Work, check_writable, cohorts, missing, tuned, workers
from kdbench.execution.worker import Worker
from kdbench.grid.grid import Executor
from kdbench.grid.run import Run
from kdbench.runs import heartbeat, records
from kdbench.runs.records import Record
from kdbench.training.memory import free_memory

CRASHES = 3
"""A run whose process died this often is recorded as failed."""


def run_all(expanded: Sequence[Run], runs: Path, data: Path, executor: Executor) -> Iterator[Event]:
    """Train everything that has no record, yielding what happens.

    Closing the iterator stops the workers at the end of their step; nothing is lost.

    Raises:
        JobError: training cannot go on, and why; records and checkpoints are whole.
    """
    if executor.ranks > 1:
        raise JobError(
            f"executor.ranks: {executor.ranks}: workers on this machine train alone, on one GPU "
            "each; expected 1, or kind: slurm"
        )
    check_writable(runs)
    todo = missing(expanded, runs)
    if not todo:
        return
    n = workers(executor)
    groups = cohorts(todo, most=executor.cohort, workers=n)
    n = min(n, len(groups))
    free = free_memory()
    task = Work(tuple(groups), runs, data, executor, n, free / n if free else None)
    if measured := tuned(executor):
        yield Event(left=len(todo), line=_describe_split(*measured))
    if executor.kind == "debug":
        yield from _here(task, todo)
    else:
        yield from _Pool(task, n, todo).events()


def _describe_split(way: MeasuredSplit, best: MeasuredSplit) -> str:
    """That ``way`` was chosen by a measurement, and that ``best`` is for the grid to ask for."""
    line = f"executor: {way}, as kdbench doctor --tune found on this machine"
    if best.threads == way.threads:
        return line
    times = best.steps_per_s / way.steps_per_s
    return f"{line}; {best} was {times:.2f} times as fast, but rounds differently: ask in the grid"


def _here(task: Work, todo: Sequence[Run]) -> Iterator[Event]:
    """Train in this process, in a thread, so that events can be shown meanwhile."""
    asked = threading.Event()
    failure: list[BaseException] = []

    def target() -> None:
        try:
            Worker(task, 0, asked.is_set, lambda beats, line: None).run()
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=target, name="trainer")
    thread.start()
    try:
        yield from _watch(todo, task.runs, thread.is_alive)
    finally:
        asked.set()
        thread.join()
    if failure:
        raise failure[0]


def _watch(todo: Sequence[Run], runs: Path, alive: Callable[[], bool]) -> Iterator[Event]:
    """What happens in ``runs`` while somebody trains; once more after the end."""
    pending = {run.id: run for run in todo}
    again = True
    while again:
        began = time.monotonic()
        again = alive()
        ended = []
        for run_id, run in list(pending.items()):
            record = records.read(runs, run_id)
            if record is not None:
                ended.append((run, record))
                del pending[run_id]
        beats = tuple(heartbeat.load(runs, pending).values()) if again else ()
        yield Event(tuple(ended), beats, len(pending))
        if again:
            time.sleep(max(0.3, 3 * (time.monotonic() - began)))


class _Pool:
    """Worker processes, replaced when they die."""

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
        # Torch reads these when it is imported, in the child; a child inherits them.
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
            raise JobError("a worker could not go on; the line above says why")

    def _alive(self) -> bool:
        """Whether anybody still works; buries the dead and replaces them."""
        for number, process in list(self.processes.items()):
            if process.is_alive():
                continue
            process.join()
            del self.processes[number]
            if process.exitcode in (1, 2):  # said why; another worker would fare no better
                self.fatal = True
                for other in self.processes.values():
                    other.terminate()
            elif process.exitcode != 0 and not self.fatal:
                self._handle_death(process)
                if not self.fatal:
                    self.processes[number] = self._start(number)
        return bool(self.processes)

    def _handle_death(self, process: BaseProcess) -> None:
        """Note what a dead worker had in hand; a run that keeps killing workers has failed."""
        code = process.exitcode or 0
        how = crashes.cause(-code) if code < 0 else f"exit code {code}"
        self.lines.append(f"worker {process.pid} died of {how}; its runs go on in another")
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
                reason += crashes.remedy(-code, run)
                records.write(self.task.runs, Record(run.id, "failed", reason))
                heartbeat.clear(self.task.runs, run.id)
        # Whoever was there goes on alone, so that only the culprit dies again.
        suspects = [(run,) for run in self.todo if self.deaths[run.id]]
        calm = [
            tuple(run for run in cohort if not self.deaths[run.id]) for cohort in self.task.cohorts
        ]
        self.task = replace(self.task, cohorts=(*suspects, *(cohort for cohort in calm if cohort)))

    def _end(self) -> None:
        for process in self.processes.values():
            process.terminate()  # asks: the worker saves and ends at the step's end
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
    """A worker process: quiet, stops at a step's end when asked to or when its parent is gone."""
    asked = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: asked.set())

    def stop() -> bool:
        return asked.is_set() or os.getppid() != parent

    try:
        Worker(task, number, stop, lambda beats, line: None).run()
    except JobError as error:
        sys.stderr.write(f"kdbench: {error}\n")
        sys.exit(2)
