"""What a runner on Slurm knows: which job is to train which run, what was seen, what was lost.

It asks Slurm when it is due and draws the conclusions; it submits nothing.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdbench import attempts, jobs, lease, records
from kdbench.jobs import JobError
from kdbench.records import Record
from kdbench.resources import Slurm
from kdbench.run import Run
from kdbench.slurm import judge, ledger
from kdbench.slurm.judge import Watch
from kdbench.slurm.ledger import Submission
from kdbench.slurm.scheduler import Ended, Queued, Scheduler, SchedulerError

LOOKUP_SECONDS = 20.0
"""A submission without an answer that Slurm does not know after so long was never made."""
PATIENT = ("Priority", "Resources", "Dependency", "JobArrayTaskLimit", "BeginTime")
"""Reasons to wait that need no thought."""
FULL_LOOK_SECONDS = 30.0
"""Between two looks at every record that is missing; those of running jobs are looked at often."""


@dataclass
class Track:
    """A submission and what was seen of it.

    Attributes:
        watches: by element. settled: elements of which nothing is to be waited for.
        since: when this runner first saw it. job: Slurm's id, once it is known.
    """

    submission: Submission
    since: float
    watches: dict[int, Watch] = field(default_factory=dict)
    settled: set[int] = field(default_factory=set)
    job: str | None = None

    def __post_init__(self) -> None:
        self.job = self.submission.job()

    def element(self, index: int) -> str | None:
        """Slurm's id of an element, once it is known."""
        return self.submission.element(self.job, index)


class Board:
    """The state of a grid on Slurm.

    Args:
        expanded: every run of the grid, those that others learn from first.
        runs: folder of runs. slurm: how it is submitted. scheduler: asks Slurm.

    Attributes:
        pending: runs without a record. claims: run -> submission and element that is to train it.
        tries: run -> how often it was submitted. lines: to be said.
        next_poll: when to ask Slurm again.
    """

    def __init__(
        self, expanded: Sequence[Run], runs: Path, slurm: Slurm, scheduler: Scheduler
    ) -> None:
        self.runs, self.slurm, self.scheduler = runs, slurm, scheduler
        self.pending = {run.id: run for run in jobs.missing(expanded, runs)}
        self.tracks: dict[str, Track] = {}
        self.claims: dict[str, tuple[str, int]] = {}
        self.losses: Counter[str] = Counter()
        self.marks: dict[str, int] = {}
        self.tries: Counter[str] = Counter()
        self.lines: list[str] = []
        self.trouble = ""
        self.next_poll = self.last_full = 0.0
        self.queue: Mapping[str, Queued] = {}

    def load(self, now: float) -> None:
        """Pick up what earlier runners have submitted."""
        for submission in ledger.unfinished(self.runs):
            if submission.name not in self.tracks:
                self.claim(Track(submission, now))

    def claim(self, track: Track) -> None:
        """Note that a submission is to train its runs."""
        submission = track.submission
        self.tracks[submission.name] = track
        for index in range(len(submission.elements)):
            for run_id in submission.ids(index):
                self.claims[run_id] = (submission.name, index)
                tried = submission.attempts.get(run_id, 0) + 1
                self.tries[run_id] = max(self.tries[run_id], tried)

    def in_jobs(self) -> list[str]:
        """Missing runs that a job may be training now."""
        found = []
        for run_id in self.pending:
            claim = self.claims.get(run_id)
            if claim is None:
                continue
            job = self.tracks[claim[0]].element(claim[1])
            listed = self.queue.get(job or "")
            if listed is None or listed.state != "PENDING":
                found.append(run_id)
        return found

    def collect(self, now: float) -> list[tuple[Run, Record]]:
        """Runs that have got a record since the last look."""
        look = self.in_jobs()
        if now - self.last_full >= FULL_LOOK_SECONDS:
            self.last_full, look = now, list(self.pending)
        ended = []
        for run_id in look:
            record = records.read(self.runs, run_id)
            if record is not None:
                ended.append((self.pending.pop(run_id), record))
        return ended

    def poll(self, now: float) -> None:
        """Ask Slurm, and draw the conclusions that are safe."""
        self.next_poll = now + self.slurm.poll_seconds
        if not any(len(t.settled) < len(t.submission.elements) for t in self.tracks.values()):
            return
        try:
            self.queue = self.scheduler.queue()
        except SchedulerError as error:
            # It says nothing about the jobs. Asking less often helps a scheduler in trouble.
            self.next_poll = now + 2 * self.slurm.poll_seconds
            self.say_once(f"Slurm does not answer, jobs go on: {error}")
            return
        if self.trouble.startswith("Slurm does not answer"):
            self.say_once("Slurm answers again")
        self.last_full = -1e9  # look at every record before anything is declared lost
        ended = self._accounting(now)
        for track in list(self.tracks.values()):
            self._poll_one(track, ended, now)

    def _accounting(self, now: float) -> Mapping[str, Ended]:
        watches = {
            job: watch
            for track in self.tracks.values()
            for index, watch in track.watches.items()
            if index not in track.settled and (job := track.element(index))
        }
        confirm = self._confirm()
        wanted = judge.needs_accounting(watches, self.queue, now, confirm)
        if not wanted:
            return {}
        try:
            return self.scheduler.accounting(wanted)
        except SchedulerError as error:
            self.say_once(f"sacct does not answer, going on without it: {error}")
            return {}

    def _confirm(self) -> float:
        return min(judge.CONFIRM_SECONDS, 2 * self.slurm.poll_seconds)

    def _poll_one(self, track: Track, ended: Mapping[str, Ended], now: float) -> None:
        submission = track.submission
        if track.job is None:
            self._look_up(track, now)
            return
        for index in range(len(submission.elements)):
            if index in track.settled:
                continue
            name = track.element(index) or ""
            listed = self.queue.get(name)
            watch = track.watches.setdefault(index, Watch())
            if listed is not None and listed.state == "PENDING" and listed.reason in PATIENT:
                watch.absent_since, watch.absences, watch.stuck_since = None, 0, None
                continue  # most of a large grid: nothing to look at on disk
            left = [i for i in submission.ids(index) if self.is_missing(i)]
            if not left and listed is None:
                self._settle(track, index)
                continue
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

    def is_missing(self, run_id: str) -> bool:
        """Whether a run has no record, as the disk says now."""
        return not records.there(self.runs, run_id)

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
        name = track.element(index) or ""
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
            self._lost(track, index, left, verdict.why)

    def _held(self, run_id: str) -> bool:
        """Whether somebody trains a run, as its lease says."""
        return lease.fresh(records.folder(self.runs, run_id))

    def _vanish(self) -> float:
        return min(judge.VANISH_SECONDS, 12 * self.slurm.poll_seconds)

    def _settle(self, track: Track, index: int) -> None:
        track.settled.add(index)
        for run_id in track.submission.ids(index):
            if self.claims.get(run_id) == (track.submission.name, index):
                del self.claims[run_id]

    def _cancel(self, names: list[str]) -> None:
        try:
            self.scheduler.cancel(names)
        except SchedulerError as error:
            self.say_once(f"Slurm does not answer: {error}")

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
            self.say_once(f"Slurm does not answer: {error}")
            track.since = now
            return
        if job is not None or now - track.since >= min(LOOKUP_SECONDS, 4 * self.slurm.poll_seconds):
            for index in range(len(submission.elements)):
                self._settle(track, index)
            submission.close()
            del self.tracks[submission.name]
            if job is not None:
                self.lines.append(f"job {job} was made by an sbatch that gave no answer; cancelled")

    def _lost(self, track: Track, index: int, left: list[str], why: str) -> None:
        """Runs whose job has gone without a record: to be submitted again, or given up."""
        job = track.element(index)
        told = self._error_of(track.submission, index)
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
            if self.losses[run_id] > self.slurm.retries:
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

    def hopeless(self) -> bool:
        """Whether what is left will never get a record."""
        if self.claims.keys() & self.pending.keys():
            return False
        return all(self._blocked(run) for run in self.pending.values())

    def due(self) -> list[Run]:
        """Missing runs that nobody trains or is to train, and that can be trained."""
        return [
            run
            for run in self.pending.values()
            if run.id not in self.claims
            and self.is_missing(run.id)
            and not self._blocked(run)
            and not self._held(run.id)
        ]

    def unanswered(self) -> bool:
        """Whether there is a submission of which nobody knows whether Slurm has it."""
        return any(track.job is None for track in self.tracks.values())

    def job_of(self, run_id: str) -> str | None:
        """The job that is to train a missing run."""
        claim = self.claims.get(run_id)
        if claim is None or not self.is_missing(run_id):
            return None
        return self.tracks[claim[0]].element(claim[1])

    def say_once(self, line: str) -> None:
        """Say a line, unless it was the last one of its kind."""
        if line != self.trouble:
            self.trouble = line
            self.lines.append(line)
