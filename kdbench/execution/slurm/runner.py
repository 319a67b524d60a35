"""The runner that submits a grid's missing runs to Slurm, watches them and resubmits lost ones.

It can be stopped and restarted at any time, on any machine that sees ``runs/``; jobs continue
without it. If several runners share a folder, one submits and the others watch.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from kdbench.execution import work
from kdbench.execution.events import Event
from kdbench.execution.memory_fit import JobSizing
from kdbench.execution.slurm import code_snapshot, submit
from kdbench.execution.slurm.board import Board, Track
from kdbench.execution.slurm.poller import Poller
from kdbench.execution.slurm.scheduler import Scheduler, SchedulerError, check_commands
from kdbench.execution.slurm.silence import Silence
from kdbench.execution.slurm.submissions import FOLDER, Submission
from kdbench.execution.slurm.submit import NotNow
from kdbench.execution.waiting import Waiting
from kdbench.execution.work import JobError
from kdbench.grid.grid import Executor
from kdbench.grid.resources import Resources
from kdbench.grid.run import Run
from kdbench.runs import heartbeat
from kdbench.runs.records import Record

DETACH_ROUNDS = 8
"""Attempts, some seconds apart, to submit all runs before returning."""


class SlurmRunner:
    """A runner that trains runs in Slurm jobs.

    Args:
        expanded: every run of the grid, teachers first.
        grid: name of the grid.
        runs: folder of runs.
        data: folder of data sets.
        executor: settings of the grid.
        scheduler: calls Slurm's commands.

    Raises:
        UserError: this machine lacks Slurm's commands.
    """

    def __init__(
        self,
        expanded: Sequence[Run],
        grid: str,
        runs: Path,
        data: Path,
        executor: Executor,
        scheduler: Scheduler | None = None,
    ) -> None:
        if scheduler is None:
            check_commands()
            scheduler = Scheduler()
        self.grid, self.runs, self.data, self.executor = grid, runs.resolve(), data, executor
        self.scheduler = scheduler
        self.board = Board(expanded, self.runs)
        self._made_of = work.made_of(expanded, self.runs)
        self.poller = Poller(self.board, executor.slurm, self.scheduler)
        self.next_submit = 0.0
        self.waiting = Waiting(self.runs)
        self.silence = Silence(self.board)
        self._limit: int | None = None
        self._checked: dict[Resources, Resources] = {}
        self._job_sizing = JobSizing(executor, lambda line: self.board.lines.append(line))

    def submit_all(self) -> Iterator[Event]:
        """Submit all runs that no job trains yet, without waiting for them.

        Raises:
            JobError: Slurm refuses, or another runner submits runs of this folder.
        """
        with self._lock() as acquired:
            if not acquired:
                raise JobError(
                    f"{self.runs}: another runner submits here; wait for it, or watch it with "
                    "kdbench status"
                )
            self.board.load(time.monotonic())
            for _ in range(DETACH_ROUNDS):
                self.poller.poll(time.monotonic())
                self._submit_due(time.monotonic())
                yield self._event([])
                if not self.board.due() and not self.board.unanswered():
                    return
                time.sleep(5.0)
        raise JobError(
            f"not all runs were submitted ({self.board.trouble}); repeat the command to continue"
        )

    def events(self) -> Iterator[Event]:
        """Submit, watch and resubmit until every run has a record or cannot get one.

        Closing the iterator does not affect the jobs.

        Raises:
            JobError: Slurm refuses the grid's resources; running jobs continue.
        """
        while self.board.pending:
            with self._lock() as acquired:
                if acquired:
                    self.board.load(time.monotonic())
                    yield from self._submit_and_watch()
                    return
            self.board.say_once("another runner submits here; watching")
            yield from self._watch_only()

    def _submit_and_watch(self) -> Iterator[Event]:
        while True:
            now = time.monotonic()
            if now >= self.poller.next_poll:
                self.poller.poll(now)
            if now >= self.next_submit:
                self._submit_due(now)
            ended = self.board.collect(time.monotonic())
            if not self.board.claims:
                self.board.say(self.waiting.line(self.board.pending.values()))
            yield self._event(ended)
            if not self.board.pending or self.board.hopeless():
                return
            self.silence.check(now)
            time.sleep(min(1.0, self.executor.slurm.poll_seconds))

    def _watch_only(self) -> Iterator[Event]:
        """Watch for some seconds, while another runner submits."""
        until = time.monotonic() + 10
        while self.board.pending and time.monotonic() < until:
            self.board.check_all_next()
            yield self._event(self.board.collect(time.monotonic()))
            time.sleep(1.0)

    def _event(self, ended: list[tuple[Run, Record]]) -> Event:
        lines, self.board.lines = self.board.lines, []
        beats = tuple(heartbeat.load(self.runs, self.board.in_jobs()).values())
        return Event(tuple(ended), beats, len(self.board.pending), "\n".join(lines))

    @contextlib.contextmanager
    def _lock(self) -> Iterator[bool]:
        """Try to become the runner that submits, for as long as the context lasts."""
        (self.runs / FOLDER).mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.runs / FOLDER / "runner.lock").acquire(timeout=0):
                yield True
        except Timeout:
            yield False

    def _submit_due(self, now: float) -> None:
        """Submit the runs that are due: teachers first, so that their students' jobs can wait."""
        self.next_submit = now + 1.0
        todo = self.board.due()
        if not todo:
            return
        submitted = 0
        try:
            code = code_snapshot.take(self.runs, todo)
            cohorts = work.cohorts(
                todo,
                most=self.executor.cohort,
                workers=1,
                needs=self._kept_apart,
                fits=self._job_sizing.fits,
            )
            while ready := [cohort for cohort in cohorts if self._can_submit(cohort[0])]:
                after = {
                    teacher.run: job
                    for cohort in ready
                    if (teacher := cohort[0].teacher) and (job := self.board.job_of(teacher.run))
                }
                for array in submit.arrays(ready, self._resources, after, chunk=self._chunk()):
                    self.board.claim(Track(self._submit(array, code), now))
                    submitted += sum(
                        len(cohort) for element in array.elements for cohort in element
                    )
                cohorts = [cohort for cohort in cohorts if cohort[0].id not in self.board.claims]
            self.silence.over()
        except NotNow as error:
            self.board.load(now)  # to look up a submission without an answer before repeating it
            self.next_submit = now + 2 * self.executor.slurm.poll_seconds
            limit = self.silence.note(error, now)
            self.board.say_once(f"not submitted yet, trying again: {error}{limit}")
        if submitted:
            self.board.lines.append(f"{submitted} runs submitted")

    def _can_submit(self, run: Run) -> bool:
        """Check whether a run's teacher has a record, or a job that the run's job can wait for."""
        if run.teacher is None or not self.board.is_missing(run.teacher.run):
            return True
        return self.board.job_of(run.teacher.run) is not None

    def _submit(self, array: submit.Array, code: Path) -> Submission:
        return submit.submit(
            array,
            self.scheduler,
            grid=self.grid,
            runs=self.runs,
            data=self.data,
            code=code,
            executor=self.executor,
            attempts=self.board.tries,
            made_of=self._made_of,
        )

    def _kept_apart(self, run: Run) -> tuple[Resources, str]:
        """Return what must be equal for two runs to share a job."""
        return self._resources(run), run.id if run.id in self.poller.suspects else ""

    def _resources(self, run: Run) -> Resources:
        """Return a run's resources, checked against the partitions of the cluster."""
        requested = self.executor.slurm.of(run)
        if requested not in self._checked:
            try:
                partitions = self.scheduler.partitions()
            except SchedulerError as error:
                raise NotNow(str(error), silent=True) from None
            self._checked[requested] = submit.check(
                self.executor.slurm, self.executor.ranks, requested, partitions
            )
        return self._checked[requested]

    def _chunk(self) -> int:
        """Return the largest number of elements of an array."""
        if self._limit is None:
            try:
                size = self.scheduler.config().get("MaxArraySize", "1001")
            except SchedulerError as error:
                raise NotNow(str(error), silent=True) from None
            self._limit = max(1, int(size) - 1)
        return min(self.executor.slurm.chunk, self._limit)
