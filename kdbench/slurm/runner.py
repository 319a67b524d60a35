"""A runner on Slurm: submits what is missing, watches, and submits again what was lost.

It can be stopped and started at any time, on any machine that sees ``runs/``; jobs go on without
it. Of several runners of one folder one submits and the others watch.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from kdbench import attempts, jobs, lease, progress, records, snapshot
from kdbench.grid import Executor
from kdbench.jobs import JobError
from kdbench.records import Record
from kdbench.resources import Resources
from kdbench.run import Run
from kdbench.runner import Event
from kdbench.slurm import judge, ledger, submit
from kdbench.slurm.judge import Watch
from kdbench.slurm.ledger import FOLDER, Submission
from kdbench.slurm.scheduler import Ended, Queued, Scheduler, SchedulerError
from kdbench.slurm.sizing import Sizing
from kdbench.slurm.submit import NotNow

LOOKUP_SECONDS = 20.0
"""A submission without an answer that Slurm does not know after so long was never made."""
FULL_LOOK_SECONDS = 30.0
"""Between two looks at every record that is missing; those of running jobs are looked at often."""


@dataclass
class Track:
    """A submission and what was seen of it.

    Attributes:
        watches: by element. settled: elements of which nothing is to be waited for.
        since: when this runner first saw it.
    """

    submission: Submission
    since: float
    watches: dict[int, Watch] = field(default_factory=dict)
    settled: set[int] = field(default_factory=set)


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
        self.expanded = list(expanded)
        self.pending = {run.id: run for run in jobs.missing(expanded, self.runs)}
        self.tracks: dict[str, Track] = {}
        self.claims: dict[str, tuple[str, int]] = {}
        """Run -> submission and element that is to train it."""
        self.losses: Counter[str] = Counter()
        self.marks: dict[str, int] = {}
        self.tries: Counter[str] = Counter()
        self.lines: list[str] = []
        self.trouble: str = ""
        self.next_poll = self.next_submit = self.last_full = 0.0
        self.queue: Mapping[str, Queued] = {}
        self._limit: int | None = None
        self._needs: dict[Resources, Resources] = {}
        self._sizing = Sizing(executor)

    # -- what a user does -------------------------------------------------------------------

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
            self._load()
            self._poll(time.monotonic())
            for attempt in range(5):
                self._submit_due(time.monotonic())
                yield self._event([])
                if not self._due():
                    return
                time.sleep(0 if attempt == 4 else 2.0)
        left = len(self._due())
        raise JobError(f"{left} runs were not submitted: {self.trouble}; the same command goes on")

    def events(self) -> Iterator[Event]:
        """Submit, watch, submit again, until every run has a record or cannot get one.

        Closing the iterator leaves the jobs alone.

        Raises:
            JobError: Slurm refuses what the grid asks for; jobs that run go on.
        """
        while self.pending:
            with self._role() as mine:
                if mine:
                    self._load()
                    yield from self._lead()
                    return
            self._say_once("another runner submits here; watching")
            yield from self._look_on()

    def _lead(self) -> Iterator[Event]:
        """As the one who submits."""
        while True:
            now = time.monotonic()
            if now >= self.next_poll:
                self._poll(now)
            if now >= self.next_submit:
                self._submit_due(now)
            ended = self._collect(time.monotonic())
            yield self._event(ended)
            if not self.pending or self._hopeless():
                return
            time.sleep(min(1.0, self.executor.slurm.poll_seconds))

    def _look_on(self) -> Iterator[Event]:
        """As one who only watches, for a while."""
        until = time.monotonic() + 10
        while self.pending and time.monotonic() < until:
            self.last_full = -1e9
            yield self._event(self._collect(time.monotonic()))
            time.sleep(1.0)

    def _event(self, ended: list[tuple[Run, Record]]) -> Event:
        lines, self.lines = self.lines, []
        beats = tuple(progress.load(self.runs, self._in_jobs()).values())
        return Event(tuple(ended), beats, len(self.pending), "\n".join(lines))

    def _say_once(self, line: str) -> None:
        if line != self.trouble:
            self.trouble = line
            self.lines.append(line)

    @contextlib.contextmanager
    def _role(self) -> Iterator[bool]:
        """Whether this runner is the one that submits, as long as the context lasts."""
        (self.runs / FOLDER).mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.runs / FOLDER / "runner.lock").acquire(timeout=0):
                yield True
        except Timeout:
            yield False

    # -- what lies in runs/ -----------------------------------------------------------------

    def _load(self) -> None:
        """Pick up what earlier runners have submitted."""
        now = time.monotonic()
        for submission in ledger.unfinished(self.runs):
            if submission.name not in self.tracks:
                self._claim(Track(submission, now))

    def _claim(self, track: Track) -> None:
        submission = track.submission
        self.tracks[submission.name] = track
        for index in range(len(submission.elements)):
            for run_id in submission.ids(index):
                self.claims[run_id] = (submission.name, index)
                tried = submission.attempts.get(run_id, 0) + 1
                self.tries[run_id] = max(self.tries[run_id], tried)

    def _in_jobs(self) -> list[str]:
        """Missing runs that a running job may be training, and those nobody claims."""
        found = []
        for run_id in self.pending:
            claim = self.claims.get(run_id)
            if claim is None:
                continue
            job = self.tracks[claim[0]].submission.element_id(claim[1])
            listed = self.queue.get(job or "")
            if listed is None or listed.state != "PENDING":
                found.append(run_id)
        return found

    def _collect(self, now: float) -> list[tuple[Run, Record]]:
        """Runs that have got a record since the last look."""
        look = self._in_jobs()
        if now - self.last_full >= FULL_LOOK_SECONDS:
            self.last_full, look = now, list(self.pending)
        ended = []
        for run_id in look:
            record = records.read(self.runs, run_id)
            if record is not None:
                ended.append((self.pending.pop(run_id), record))
        return ended

    # -- what Slurm says --------------------------------------------------------------------

    def _poll(self, now: float) -> None:
        """Ask Slurm, and draw the conclusions that are safe."""
        self.next_poll = now + self.executor.slurm.poll_seconds
        if not any(len(t.settled) < len(t.submission.elements) for t in self.tracks.values()):
            return
        try:
            self.queue = self.scheduler.queue()
        except SchedulerError as error:
            # It says nothing about the jobs. Asking less often helps a scheduler in trouble.
            self.next_poll = now + 2 * self.executor.slurm.poll_seconds
            self._say_once(f"Slurm does not answer, jobs go on: {error}")
            return
        if self.trouble.startswith("Slurm does not answer"):
            self._say_once("Slurm answers again")
        self.last_full = -1e9  # look at every record before anything is declared lost
        ended = self._accounting(now)
        for track in list(self.tracks.values()):
            self._poll_one(track, ended, now)

    def _accounting(self, now: float) -> Mapping[str, Ended]:
        watches = {
            job: watch
            for track in self.tracks.values()
            for index, watch in track.watches.items()
            if index not in track.settled and (job := track.submission.element_id(index))
        }
        confirm = self._confirm()
        wanted = judge.needs_accounting(watches, self.queue, now, confirm)
        if not wanted:
            return {}
        try:
            return self.scheduler.accounting(wanted)
        except SchedulerError as error:
            self._say_once(f"sacct does not answer, going on without it: {error}")
            return {}

    def _confirm(self) -> float:
        return min(judge.CONFIRM_SECONDS, 2 * self.executor.slurm.poll_seconds)

    def _poll_one(self, track: Track, ended: Mapping[str, Ended], now: float) -> None:
        submission = track.submission
        job = submission.job()
        if job is None:
            self._look_up(track, now)
            return
        for index in range(len(submission.elements)):
            if index in track.settled:
                continue
            name = submission.element_id(index) or ""
            listed = self.queue.get(name)
            left = [i for i in submission.ids(index) if self._is_missing(i)]
            if not left and listed is None:
                track.settled.add(index)
                continue
            watch = track.watches.setdefault(index, Watch())
            verdict = judge.judge(
                watch,
                listed,
                ended.get(name),
                now,
                confirm=self._confirm(),
                vanish=self._vanish(),
            )
            self._act(track, index, verdict, left, listed, now)
        if len(track.settled) == len(submission.elements):
            submission.close()
            del self.tracks[submission.name]

    def _is_missing(self, run_id: str) -> bool:
        return not (records.folder(self.runs, run_id) / "record.json").exists()

    def _act(
        self,
        track: Track,
        index: int,
        verdict: judge.Verdict,
        left: list[str],
        listed: Queued | None,
        now: float,
    ) -> None:
        """Do what a verdict asks for."""
        submission = track.submission
        name = submission.element_id(index) or ""
        if verdict.fate == "impossible":
            self._cancel([name])
            self._settle(track, index)
            raise JobError(f"executor.slurm: job {name} would wait for ever: {verdict.why}")
        if verdict.fate == "orphaned":
            self._cancel([name])
            self._settle(track, index)
        elif verdict.fate == "active" and not left and listed:
            # All is there, and Slurm does not know: a step's daemon died, or the job was requeued.
            watch = track.watches[index]
            watch.idle_since = now if watch.idle_since is None else watch.idle_since
            if now - watch.idle_since >= self._vanish():
                self._cancel([name])
        elif verdict.fate == "gone" or (
            # Slurm may have lost sight of a job that still trains.
            verdict.fate == "vanished" and not any(map(self._held, left))
        ):
            self._settle(track, index)
            self._lost(submission, index, left, verdict.why)

    def _held(self, run_id: str) -> bool:
        """Whether somebody trains a run, as its lease says."""
        return lease.fresh(records.folder(self.runs, run_id))

    def _vanish(self) -> float:
        return min(judge.VANISH_SECONDS, 12 * self.executor.slurm.poll_seconds)

    def _settle(self, track: Track, index: int) -> None:
        track.settled.add(index)
        for run_id in track.submission.ids(index):
            if self.claims.get(run_id) == (track.submission.name, index):
                del self.claims[run_id]

    def _cancel(self, names: list[str]) -> None:
        try:
            self.scheduler.cancel(names)
        except SchedulerError as error:
            self._say_once(f"Slurm does not answer: {error}")

    def _look_up(self, track: Track, now: float) -> None:
        """A submission whose sbatch gave no answer: find its job, or conclude there is none.

        A job that is there has no function to run, since submitit writes it after sbatch has
        answered; it is cancelled and made again.
        """
        submission = track.submission
        try:
            job = self.scheduler.find(submission.name)
            if job is not None:
                self.scheduler.cancel([job])
        except SchedulerError as error:
            self._say_once(f"Slurm does not answer: {error}")
            track.since = now
            return
        if job is not None or now - track.since >= min(
            LOOKUP_SECONDS, 4 * self.executor.slurm.poll_seconds
        ):
            for index in range(len(submission.elements)):
                self._settle(track, index)
            submission.close()
            del self.tracks[submission.name]
            if job is not None:
                self.lines.append(f"job {job} was made by an sbatch that gave no answer; cancelled")

    # -- losses -----------------------------------------------------------------------------

    def _lost(self, submission: Submission, index: int, left: list[str], why: str) -> None:
        """Runs whose job has gone without a record: to be submitted again, or given up."""
        job = submission.element_id(index)
        told = self._error_of(submission, index)
        text = f"job {job}: {why}{f': {told}' if told else ''}"
        mine = [run_id for run_id in left if run_id in self.pending]
        if mine:
            self.lines.append(f"{text}; {len(mine)} runs to submit again")
        for run_id in mine:
            run = self.pending[run_id]
            if self._blocked(run):
                continue
            mark = self._mark(run_id)
            # Preemptions that each leave some progress may be many; losses without any may not.
            self.losses[run_id] = 1 if mark != self.marks.get(run_id) else self.losses[run_id] + 1
            self.marks[run_id] = mark
            attempts.note(self.runs, run_id, text)
            if self.losses[run_id] > self.executor.slurm.retries:
                reason = f"lost {self.losses[run_id]} times without progress, last: {text}"
                about = attempts.read(self.runs, run_id)
                records.write(self.runs, Record(run_id, "failed", reason, attempts=about))

    def _error_of(self, submission: Submission, index: int) -> str:
        try:
            return (submission.folder / f"{index}.error").read_text(encoding="utf-8").strip()
        except OSError:
            return ""

    def _mark(self, run_id: str) -> int:
        """Changes whenever a run makes progress that a kill does not take back."""
        try:
            path = records.folder(self.runs, run_id) / "checkpoint.pt"
            return path.stat().st_mtime_ns
        except OSError:
            return 0

    def _blocked(self, run: Run) -> bool:
        """Whether a run can never start: its teacher ended without a network."""
        if run.teacher is None:
            return False
        record = records.read(self.runs, run.teacher.run)
        if record is not None:
            return record.status != "done"
        above = self.pending.get(run.teacher.run)
        return above is not None and self._blocked(above)

    def _hopeless(self) -> bool:
        """Whether what is left will never get a record."""
        if self.claims.keys() & self.pending.keys():
            return False
        return all(self._blocked(run) for run in self.pending.values())

    # -- submitting -------------------------------------------------------------------------

    def _due(self) -> list[Run]:
        """Missing runs that nobody trains or is to train, and that can be trained."""
        return [
            run
            for run in self.pending.values()
            if run.id not in self.claims
            and self._is_missing(run.id)
            and not self._blocked(run)
            and not self._held(run.id)
        ]

    def _submit_due(self, now: float) -> None:
        """Submit what is due, teachers first, so that their students can wait for them."""
        self.next_submit = now + 1.0
        todo = self._due()
        if not todo:
            return
        submitted = 0
        try:
            code = snapshot.take(self.runs, todo)
            cohorts = jobs.cohorts(
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
                    if c[0].teacher and (job := self._job_of(c[0].teacher.run))
                }
                for array in submit.arrays(ready, self._fitting, after, chunk=self._chunk()):
                    self._claim(Track(self._submit(array, code), now))
                    submitted += sum(len(c) for element in array.elements for c in element)
                cohorts = [cohort for cohort in cohorts if cohort[0].id not in self.claims]
        except NotNow as error:
            self._load()  # what has no answer is looked up before it is made again
            self.next_submit = now + 2 * self.executor.slurm.poll_seconds
            self._say_once(f"not submitted yet: {error}")
        if submitted:
            self.lines.append(f"{submitted} runs submitted")

    def _can_wait(self, run: Run) -> bool:
        """Whether a run's teacher is there, or a job that the run's own can wait for."""
        if run.teacher is None or not self._is_missing(run.teacher.run):
            return True
        return self._job_of(run.teacher.run) is not None

    def _job_of(self, run_id: str) -> str | None:
        """The job that is to train a missing run."""
        claim = self.claims.get(run_id)
        if claim is None or not self._is_missing(run_id):
            return None
        return self.tracks[claim[0]].submission.element_id(claim[1])

    def _submit(self, array: submit.Array, code: Path) -> Submission:
        return submit.submit(
            array,
            self.scheduler,
            grid=self.grid,
            runs=self.runs,
            data=self.data,
            code=code,
            executor=self.executor,
            attempts=self.tries,
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
    """
    wanted = {run.id for run in expanded}
    names = []
    for submission in ledger.unfinished(runs):
        for index in range(len(submission.elements)):
            job = submission.element_id(index)
            if job and wanted & set(submission.ids(index)):
                names.append(job)
    if names:
        (scheduler or Scheduler()).cancel(names)
    return names
