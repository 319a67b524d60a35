"""A runner on Slurm: submits what is missing, watches, and submits again what was lost.

It can be stopped and started at any time, on any machine that sees ``runs/``; jobs go on without
it. Of several runners of one folder one submits and the others watch.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from kdbench.errors import UserError
from kdbench.execution import work
from kdbench.execution.events import Event
from kdbench.execution.memory_fit import JobSizing
from kdbench.execution.slurm import code_snapshot, submissions, submit
from kdbench.execution.slurm.board import Board, Track
from kdbench.execution.slurm.poller import Poller
from kdbench.execution.slurm.scheduler import Scheduler, SchedulerError
from kdbench.execution.slurm.submissions import FOLDER, Submission
from kdbench.execution.slurm.submit import NotNow
from kdbench.execution.work import JobError
from kdbench.grid.grid import Executor
from kdbench.grid.resources import Resources
from kdbench.grid.run import Run
from kdbench.runs import heartbeat
from kdbench.runs.records import Record

DETACH_ROUNDS = 8
"""Tries, some seconds apart, to get everything submitted before returning."""


class SlurmRunner:
    """Gets runs trained by jobs.

    Args:
        expanded: every run of the grid, those that others learn from first.
        grid: its name. runs, data: folders. executor: how.
        scheduler: asks Slurm.
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
        self.grid, self.runs, self.data, self.executor = grid, runs.resolve(), data, executor
        self.scheduler = scheduler or Scheduler()
        self.board = Board(expanded, self.runs)
        self.poller = Poller(self.board, executor.slurm, self.scheduler)
        self.next_submit = 0.0
        self._limit: int | None = None
        self._needs: dict[Resources, Resources] = {}
        self._sizing = JobSizing(executor, lambda line: self.board.lines.append(line))

    def submit_all(self) -> Iterator[Event]:
        """Submit everything that no job trains yet, and end.

        Raises:
            JobError: Slurm refuses, or another runner is at work on this folder.
        """
        with self._role() as mine:
            if not mine:
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
            f"not all runs were submitted ({self.board.trouble}); the same command goes on"
        )

    def events(self) -> Iterator[Event]:
        """Submit, watch, submit again, until every run has a record or cannot get one.

        Closing the iterator leaves the jobs alone.

        Raises:
            JobError: Slurm refuses what the grid asks for; jobs that run go on.
        """
        while self.board.pending:
            with self._role() as mine:
                if mine:
                    self.board.load(time.monotonic())
                    yield from self._lead()
                    return
            self.board.say_once("another runner submits here; watching")
            yield from self._look_on()

    def _lead(self) -> Iterator[Event]:
        """As the one who submits."""
        while True:
            now = time.monotonic()
            if now >= self.poller.next_poll:
                self.poller.poll(now)
            if now >= self.next_submit:
                self._submit_due(now)
            ended = self.board.collect(time.monotonic())
            yield self._event(ended)
            if not self.board.pending or self.board.hopeless():
                return
            time.sleep(min(1.0, self.executor.slurm.poll_seconds))

    def _look_on(self) -> Iterator[Event]:
        """As one who only watches, for a while."""
        until = time.monotonic() + 10
        while self.board.pending and time.monotonic() < until:
            self.board.look_at_all()
            yield self._event(self.board.collect(time.monotonic()))
            time.sleep(1.0)

    def _event(self, ended: list[tuple[Run, Record]]) -> Event:
        lines, self.board.lines = self.board.lines, []
        beats = tuple(heartbeat.load(self.runs, self.board.in_jobs()).values())
        return Event(tuple(ended), beats, len(self.board.pending), "\n".join(lines))

    @contextlib.contextmanager
    def _role(self) -> Iterator[bool]:
        """Whether this runner is the one that submits, as long as the context lasts."""
        (self.runs / FOLDER).mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.runs / FOLDER / "runner.lock").acquire(timeout=0):
                yield True
        except Timeout:
            yield False

    def _submit_due(self, now: float) -> None:
        """Submit what is due, teachers first, so that their students can wait for them."""
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
                needs=self._fitting,
                fits=self._sizing.fits,
            )
            while ready := [cohort for cohort in cohorts if self._can_wait(cohort[0])]:
                after = {
                    c[0].teacher.run: job
                    for c in ready
                    if c[0].teacher and (job := self.board.job_of(c[0].teacher.run))
                }
                for array in submit.arrays(ready, self._fitting, after, chunk=self._chunk()):
                    self.board.claim(Track(self._submit(array, code), now))
                    submitted += sum(len(c) for element in array.elements for c in element)
                cohorts = [cohort for cohort in cohorts if cohort[0].id not in self.board.claims]
        except NotNow as error:
            self.board.load(now)  # what has no answer is looked up before it is made again
            self.next_submit = now + 2 * self.executor.slurm.poll_seconds
            self.board.say_once(f"not submitted yet: {error}")
        if submitted:
            self.board.lines.append(f"{submitted} runs submitted")

    def _can_wait(self, run: Run) -> bool:
        """Whether a run's teacher is there, or a job that the run's own can wait for."""
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
        )

    def _fitting(self, run: Run) -> Resources:
        """What a run needs, checked against the cluster once."""
        wanted = self.executor.slurm.of(run)
        if wanted not in self._needs:
            try:
                there = self.scheduler.partitions()
            except SchedulerError as error:
                raise NotNow(str(error)) from None
            self._needs[wanted] = submit.check(
                self.executor.slurm, self.executor.ranks, wanted, there
            )
        return self._needs[wanted]

    def _chunk(self) -> int:
        """Most elements of an array."""
        if self._limit is None:
            try:
                told = self.scheduler.config().get("MaxArraySize", "1001")
            except SchedulerError as error:
                raise NotNow(str(error)) from None
            self._limit = max(1, int(told) - 1)
        return min(self.executor.slurm.chunk, self._limit)


def cancel(expanded: Sequence[Run], runs: Path, scheduler: Scheduler | None = None) -> list[str]:
    """Cancel the jobs that train these runs; their checkpoints stay.

    Returns:
        The jobs.

    Raises:
        UserError: Slurm does not answer.
    """
    wanted = {run.id for run in expanded}
    names = []
    for submission in submissions.unfinished(runs):
        job = submission.job()
        for index in range(len(submission.elements)):
            name = submission.element(job, index)
            if name and wanted & set(submission.ids(index)):
                names.append(name)
    if names:
        try:
            (scheduler or Scheduler()).cancel(names)
        except SchedulerError as error:
            raise UserError(f"Slurm does not answer, jobs may go on; try again: {error}") from None
    return names
