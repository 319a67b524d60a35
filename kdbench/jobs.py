"""Which runs are missing, and getting them trained: here, or by workers on this machine.

The state of the world is what lies in ``runs/``: a worker walks over the cohorts, takes what nobody
holds, and goes on until nothing is left. So any number of workers and runners can work on one grid;
a run is trained by whoever holds its lock, and a lock dies with its process.
"""

import contextlib
import logging
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from kdbench import progress, records
from kdbench.errors import UserError
from kdbench.grid import Executor
from kdbench.progress import Beat
from kdbench.records import Record
from kdbench.run import Run

if TYPE_CHECKING:
    from kdbench.trainer import Trainer

log = logging.getLogger(__name__)

CRASHES = 3
"""A run whose process died this often is recorded as failed."""


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


def work(task: Work, number: int, stop: Callable[[], bool], tell: Callable[..., None]) -> None:
    """Train cohorts until none is left that this worker could train.

    Args:
        task: what to do.
        number: of this worker, from 0; chooses its GPU.
        stop: asked after every step whether to stop.
        tell: given heartbeats and lines.

    Raises:
        JobError: data missing, disk full: something that ends all runs alike.
    """
    from kdbench.trainer import Trainer  # imports torch

    trainer = Trainer(task, number, stop, tell)
    pending = list(task.cohorts)
    while pending and not stop():
        busy = False
        for cohort in list(pending):
            if stop():
                break
            state = _try(cohort, task, trainer)
            if state == "ended":
                pending.remove(cohort)
            busy = busy or state == "trained"
        if pending and not busy:
            time.sleep(0.2)  # somebody else trains what is left, or its teacher


def _try(cohort: Sequence[Run], task: Work, trainer: "Trainer") -> str:
    """Train what can be trained of a cohort: "ended", "trained" or "waiting"."""
    todo = missing(cohort, task.runs)
    if not todo:
        return "ended"
    teacher = todo[0].teacher
    if teacher:
        record = records.read(task.runs, teacher.run)
        if record is None:
            return "waiting"
        if record.status != "done":
            return "ended"  # blocked: status and tables say so
    with contextlib.ExitStack() as held:
        if not _lock(task.runs / ".cohorts" / f"{cohort[0].id}.lock", held):
            return "waiting"
        mine = [run for run in todo if _lock(records.folder(task.runs, run.id) / "lock", held)]
        mine = missing(mine, task.runs)
        if not mine:
            return "waiting"
        trainer.train(mine)
    return "trained"


def _lock(path: Path, held: contextlib.ExitStack) -> bool:
    """Take a lock for as long as ``held`` lives; False where another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        held.enter_context(FileLock(path).acquire(timeout=0))
    except Timeout:
        return False
    return True


def _worker(task: Work, number: int, parent: int) -> None:
    """A worker process: quiet, stops at a step's end when asked to or when its parent is gone."""
    asked = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: asked.set())

    def stop() -> bool:
        return asked.is_set() or os.getppid() != parent

    try:
        work(task, number, stop, lambda beats, line: None)
    except JobError as error:
        sys.stderr.write(f"kdbench: {error}\n")
        sys.exit(2)


# --- a runner -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Event:
    """Something to show: new records, or where the running ones are."""

    ended: tuple[tuple[Run, Record], ...] = ()
    beats: tuple[Beat, ...] = ()
    left: int = 0
    line: str = ""


def run_all(expanded: Sequence[Run], runs: Path, data: Path, executor: Executor) -> Iterator[Event]:
    """Train everything that has no record, yielding what happens.

    Closing the iterator stops the workers at the end of their step; nothing is lost.

    Raises:
        JobError: training cannot go on, and why; records and checkpoints are whole.
    """
    _writable(runs)
    todo = missing(expanded, runs)
    if not todo:
        return
    n = workers(executor)
    groups = cohorts(todo, most=executor.cohort, workers=n)
    task = Work(tuple(groups), runs, data, executor)
    if executor.kind == "debug":
        yield from _here(task, todo)
    else:
        yield from _Pool(task, min(n, len(groups)), todo).events()


def _writable(runs: Path) -> None:
    try:
        runs.mkdir(parents=True, exist_ok=True)
        records.write_atomically(runs / ".writable", "")
        (runs / ".writable").unlink(missing_ok=True)
    except OSError as error:
        raise JobError(f"{runs}: cannot be written: {error.strerror}") from None


def _here(task: Work, todo: Sequence[Run]) -> Iterator[Event]:
    """Train in this process, in a thread, so that events can be shown meanwhile."""
    asked = threading.Event()
    failure: list[BaseException] = []

    def target() -> None:
        try:
            work(task, 0, asked.is_set, lambda beats, line: None)
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
        beats = tuple(progress.load(runs, pending).values()) if again else ()
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
            target=_worker, args=(self.task, number, os.getpid()), name=f"worker-{number}"
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
                self._mourn(process)
                if not self.fatal:
                    self.processes[number] = self._start(number)
        return bool(self.processes)

    def _mourn(self, process: BaseProcess) -> None:
        """Note what a dead worker had in hand; a run that keeps killing workers has failed."""
        code = process.exitcode or 0
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        self.lines.append(f"worker {process.pid} died of {how}; its runs go on in another")
        held = [
            run
            for run in missing(self.todo, self.task.runs)
            if (beat := progress.read(self.task.runs, run.id, fresh=False))
            and beat.pid == process.pid
        ]
        self.idle_deaths += not held
        if self.idle_deaths >= CRASHES:
            self.fatal = True
        for run in held:
            self.deaths[run.id] += 1
            if self.deaths[run.id] >= CRASHES:
                reason = f"its worker died {CRASHES} times, last of {how}"
                records.write(self.task.runs, Record(run.id, "failed", reason))
                progress.clear(self.task.runs, run.id)
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
