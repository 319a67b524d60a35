"""Queries of Slurm about a board's jobs, and the conclusions from the answers; submits nothing."""

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from kdbench.execution import crashes
from kdbench.execution.slurm import job_fate
from kdbench.execution.slurm.board import Board, Track
from kdbench.execution.slurm.job_fate import Watch
from kdbench.execution.slurm.scheduler import Ended, Queued, Scheduler, SchedulerError
from kdbench.execution.slurm.submissions import Submission
from kdbench.execution.work import JobError
from kdbench.grid.resources import Slurm
from kdbench.runs import attempts, lease, records
from kdbench.runs.owner import Owner
from kdbench.runs.records import Record

LOOKUP_SECONDS = 20.0
"""sbatch did not create a job if Slurm does not know the job's name after this time."""
PATIENT = ("Priority", "Resources", "Dependency", "JobArrayTaskLimit", "BeginTime")
"""Common reasons to wait, which need no action."""


class Poller:
    """The part of a runner that keeps a board up to date.

    Args:
        board: of the grid.
        slurm: settings of the grid.
        scheduler: calls Slurm's commands.

    Attributes:
        next_poll: when to query Slurm again.
        losses: by a run's id, how often in a row its job was lost without progress.
        marks: by a run's id, its progress at the last loss.
        suspects: ids of runs whose job crashed. They are submitted one by one from then on, so that
            only the one that causes the crashes fails.
    """

    def __init__(self, board: Board, slurm: Slurm, scheduler: Scheduler) -> None:
        self.board, self.slurm, self.scheduler = board, slurm, scheduler
        self.next_poll = 0.0
        self.losses: Counter[str] = Counter()
        self.marks: dict[str, int] = {}
        self.suspects: set[str] = set()

    def poll(self, now: float) -> None:
        """Query Slurm, and draw the conclusions that are safe."""
        self.next_poll = now + self.slurm.poll_seconds
        if all(track.over for track in self.board.tracks.values()):
            return
        try:
            self.board.queue = self.scheduler.queue()
        except SchedulerError as error:
            # The jobs may still run. Fewer queries help a scheduler in trouble.
            self.next_poll = now + 2 * self.slurm.poll_seconds
            self.board.say_once(f"Slurm does not answer, jobs continue: {error}")
            return
        if self.board.trouble.startswith("Slurm does not answer"):
            self.board.say_once("Slurm answers again")
        self.board.check_all_next()  # before anything is declared lost
        ended = self._accounting(now)
        for track in list(self.board.tracks.values()):
            self._poll_submission(track, ended, now)

    def _accounting(self, now: float) -> Mapping[str, Ended]:
        watches = {
            job: watch
            for track in self.board.tracks.values()
            for index, watch in track.watches.items()
            if index not in track.settled and (job := track.element(index))
        }
        confirm = self._confirm()
        jobs = job_fate.needs_accounting(watches, self.board.queue, now, confirm)
        if not jobs:
            return {}
        try:
            return self.scheduler.accounting(jobs)
        except SchedulerError as error:
            self.board.say_once(f"sacct does not answer, continuing without it: {error}")
            return {}

    def _confirm(self) -> float:
        return min(job_fate.CONFIRM_SECONDS, 2 * self.slurm.poll_seconds)

    def _vanish(self) -> float:
        return min(job_fate.VANISH_SECONDS, 12 * self.slurm.poll_seconds)

    def _poll_submission(self, track: Track, ended: Mapping[str, Ended], now: float) -> None:
        submission = track.submission
        if track.job is None:
            self._look_up(track, now)
            return
        for index in range(len(submission.elements)):
            if index in track.settled:
                continue
            name = track.element(index) or ""
            listed = self.board.queue.get(name)
            watch = track.watches.setdefault(index, Watch())
            if listed is not None and listed.state == "PENDING" and listed.reason in PATIENT:
                watch.absent_since, watch.absences, watch.stuck_since = None, 0, None
                continue  # most jobs of a large grid; saves reading the disk
            left = [i for i in submission.ids(index) if self.board.is_missing(i)]
            if not left and listed is None:
                self.board.settle(track, index)
                continue
            verdict = job_fate.judge(
                watch,
                listed,
                ended.get(name),
                now,
                confirm=self._confirm(),
                vanish=self._vanish(),
            )
            self._act(track, index, verdict, left, listed, now)
        if track.over:
            self.board.close(track)

    def _act(
        self,
        track: Track,
        index: int,
        verdict: job_fate.Verdict,
        left: list[str],
        listed: Queued | None,
        now: float,
    ) -> None:
        """Act on a verdict."""
        name = track.element(index) or ""
        if verdict.fate == "impossible":
            self._cancel([name])
            self.board.settle(track, index)
            raise JobError(f"executor.slurm: job {name} would wait forever: {verdict.why}")
        if verdict.fate == "orphaned":
            self._cancel([name])
            self.board.settle(track, index)
        elif verdict.fate == "held":
            self._cancel([name])
            self.board.settle(track, index)
            self._lost(track, index, left, verdict.why)
        elif verdict.fate == "active" and not left and listed:
            # All records exist, but Slurm lists the job: its slurmstepd died, or it was requeued.
            watch = track.watches[index]
            watch.idle_since = now if watch.idle_since is None else watch.idle_since
            if now - watch.idle_since >= self._vanish():
                self._cancel([name])
        elif verdict.fate == "gone" or (
            # Slurm may have lost track of a job that still trains.
            verdict.fate == "vanished" and not any(map(self.board.held, left))
        ):
            self.board.settle(track, index)
            self._lost(track, index, left, verdict.why, verdict.signal)

    def _cancel(self, names: list[str]) -> None:
        try:
            self.scheduler.cancel(names)
        except SchedulerError as error:
            self.board.say_once(f"Slurm does not answer: {error}")

    def _look_up(self, track: Track, now: float) -> None:
        """Find the job of a submission whose sbatch gave no answer, or conclude there is none.

        An existing job has no function to run, since submitit writes that after sbatch has
        answered. So the job is cancelled, and its runs are submitted again.
        """
        submission = track.submission
        try:
            job = self.scheduler.find(submission.name)
            if job is not None:
                self.scheduler.cancel([job])
        except SchedulerError as error:
            self.board.say_once(f"Slurm does not answer: {error}")
            track.since = now
            return
        if job is not None or now - track.since >= min(LOOKUP_SECONDS, 4 * self.slurm.poll_seconds):
            for index in range(len(submission.elements)):
                self.board.settle(track, index)
            self.board.close(track)
            if job is not None:
                self.board.lines.append(f"job {job} cancelled: sbatch created it without answering")

    def _lost(self, track: Track, index: int, left: list[str], why: str, signal: int = 0) -> None:
        """Submit the runs of a lost job again, or record them as failed after too many losses."""
        job = track.element(index)
        error = self._error_of(track.submission, index)
        text = f"job {job}: {why}{f': {error}' if error else ''}"
        ids = [run_id for run_id in left if run_id in self.board.pending]
        if ids:
            self.board.lines.append(f"{text}; {len(ids)} runs to submit again")
        for run_id in ids:
            run = self.board.pending[run_id]
            if self.board.blocked(run):
                continue
            if signal in crashes.CRASHES:
                self.suspects.add(run_id)
            mark = self._mark(run_id)
            # Losses with progress in between, such as preemptions, are not limited.
            self.losses[run_id] = 1 if mark != self.marks.get(run_id) else self.losses[run_id] + 1
            self.marks[run_id] = mark
            attempts.note(self.board.runs, run_id, text)
            if self.losses[run_id] > self.slurm.retries:
                reason = f"lost {self.losses[run_id]} times without progress, last: {text}"
                reason += crashes.remedy(signal, run)
                self._record_failure(run_id, job or "", reason)

    def _record_failure(self, run_id: str, job: str, reason: str) -> None:
        """Record a run as failed, unless a process outside the lost job trains it by now."""
        later = replace(Owner.me(), job=job, restart=sys.maxsize)  # the job's lease yields to it
        acquired = lease.acquire(records.folder(self.board.runs, run_id), later)
        if acquired is None:
            return
        try:
            history = attempts.read(self.board.runs, run_id)
            records.write(self.board.runs, Record(run_id, "failed", reason, attempts=history))
        finally:
            acquired.release()

    def _error_of(self, submission: Submission, index: int) -> str:
        try:
            path = submission.folder / f"{index}.error"
            return path.read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return ""

    def _mark(self, run_id: str) -> int:
        """Return a number that changes with each checkpoint of a run."""
        try:
            path = records.folder(self.board.runs, run_id) / "checkpoint.pt"
            return path.stat().st_mtime_ns
        except OSError:
            return 0
