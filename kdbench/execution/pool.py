"""Worker processes on this machine, which are restarted when they die."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing.process import BaseProcess

from kdbench.execution import crashes
from kdbench.execution.stopping_reason import stopping_reason
from kdbench.execution.work import Work, missing
from kdbench.execution.worker import Worker
from kdbench.grid.run import Run
from kdbench.runs import heartbeat, lease, records
from kdbench.runs.owner import Owner
from kdbench.runs.records import Record
from kdbench.training import device

CRASHES = 3
"""A run is recorded as failed after this many deaths of its worker."""


class Pool:
    """Worker processes, which are restarted when they die.

    Args:
        task: what they train.
        n: number of workers.
        todo: the runs of the task.

    Attributes:
        processes: living workers, by number.
        owners: identities of the last worker of each number.
        lines: text to show.
        fatal: training cannot continue.
    """

    def __init__(self, task: Work, n: int, todo: Sequence[Run]) -> None:
        self.task, self.todo = task, todo
        self.context = multiprocessing.get_context("spawn")
        self.deaths: Counter[str] = Counter()
        self.idle_deaths = 0
        self.lines: list[str] = []
        self.fatal = False
        self.owners: dict[int, Owner] = {}
        self.processes = {number: self._start(number) for number in range(n)}

    def _start(self, number: int) -> BaseProcess:
        process = self.context.Process(
            target=_run_worker, args=(self.task, number, os.getpid()), name=f"worker-{number}"
        )
        # The child inherits these variables; torch reads them when it is imported there.
        threads = str(self.task.executor.threads)
        with _environment(OMP_NUM_THREADS=threads, MKL_NUM_THREADS=threads):
            process.start()
        if process.pid is not None:
            self.owners[number] = Owner.of_child(process.pid)
        return process

    def processes_of_workers(self) -> set[str]:
        """Return the identities of the workers (``Owner.process``)."""
        return {owner.process for owner in self.owners.values()}

    def alive(self) -> bool:
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
                self._handle_death(process, self.owners[number].process)
                if not self.fatal:
                    self.processes[number] = self._start(number)
        return bool(self.processes)

    def _handle_death(self, process: BaseProcess, identity: str) -> None:
        """Count a death for each run of a dead worker; a run fails after ``CRASHES`` of them.

        Args:
            identity: of the worker (``Owner.process``). Other hosts and containers may have
                workers with the same pid.
        """
        number = crashes.number(process.exitcode or 0)
        how = crashes.cause(number) if number else f"exit code {process.exitcode}"
        self.lines.append(f"worker {process.pid} died of {how}; its runs resume in another worker")
        held = [
            run
            for run in missing(self.todo, self.task.runs)
            if (beat := heartbeat.read(self.task.runs, run.id, fresh=False))
            and beat.process == identity
        ]
        self.idle_deaths += not held
        if self.idle_deaths >= CRASHES:
            self.fatal = True
        for run in held:
            self.deaths[run.id] += 1
            if self.deaths[run.id] >= CRASHES:
                reason = f"its worker died {CRASHES} times, last of {how}"
                reason += crashes.remedy(number, run)
                self._record_failure(run, reason, identity)
        # Runs that a dead worker held restart one by one, so that only the faulty one fails again.
        suspects = [(run,) for run in self.todo if self.deaths[run.id]]
        others = [
            tuple(run for run in cohort if not self.deaths[run.id]) for cohort in self.task.cohorts
        ]
        self.task = replace(self.task, cohorts=(*suspects, *filter(None, others)))

    def _record_failure(self, run: Run, reason: str, identity: str) -> None:
        """Record a run as failed, unless a process other than the dead worker trains it by now."""
        folder = records.folder(self.task.runs, run.id)
        acquired = lease.acquire(folder, Owner.me(), ended=identity)
        if acquired is None:
            return
        try:
            records.write(self.task.runs, Record(run.id, "failed", reason))
            heartbeat.clear(self.task.runs, run.id)
        finally:
            acquired.release()

    def end(self) -> None:
        """Stop the workers at the end of their step."""
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
    except BaseException as error:
        if reason := stopping_reason(error):
            sys.stderr.write("".join(f"kdbench: {line}\n" for line in reason.splitlines()))
            sys.exit(2)
        if not device.lost(error):
            raise
        sys.stderr.write(f"kdbench: {crashes.gpu_refuses(error)}\n")
        sys.stderr.flush()
        os._exit(crashes.DEVICE_LOST)  # the usual end of a process would wait for the GPU
