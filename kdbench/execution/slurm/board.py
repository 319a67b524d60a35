"""What a runner on Slurm knows: which job is to train which run, and what is due.

It looks at the disk only; ``poller`` asks Slurm.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdbench.execution import work
from kdbench.execution.slurm import submissions
from kdbench.execution.slurm.job_fate import Watch
from kdbench.execution.slurm.scheduler import Queued
from kdbench.execution.slurm.submissions import Submission
from kdbench.grid.run import Run
from kdbench.runs import lease, records
from kdbench.runs.records import Record

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

    @property
    def over(self) -> bool:
        """Whether nothing is to be waited for any more."""
        return len(self.settled) == len(self.submission.elements)


class Board:
    """The state of a grid on Slurm.

    Args:
        expanded: every run of the grid, those that others learn from first.
        runs: folder of runs.

    Attributes:
        pending: runs without a record. tracks: submissions by their names, until they are over.
        claims: run -> submission and element that is to train it.
        tries: run -> how often it was submitted. lines: to be said; trouble: the last such line.
        queue: what Slurm listed last, by job.
    """

    def __init__(self, expanded: Sequence[Run], runs: Path) -> None:
        self.runs = runs
        self.pending = {run.id: run for run in work.missing(expanded, runs)}
        self.tracks: dict[str, Track] = {}
        self.claims: dict[str, tuple[str, int]] = {}
        self.tries: Counter[str] = Counter()
        self.lines: list[str] = []
        self.trouble = ""
        self.last_full = 0.0
        self.queue: Mapping[str, Queued] = {}

    def load(self, now: float) -> None:
        """Pick up what earlier runners have submitted."""
        for submission in submissions.unfinished(self.runs):
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

    def settle(self, track: Track, index: int) -> None:
        """Nothing is to be waited for of an element any more; its runs are free."""
        track.settled.add(index)
        for run_id in track.submission.ids(index):
            if self.claims.get(run_id) == (track.submission.name, index):
                del self.claims[run_id]

    def close(self, track: Track) -> None:
        """A submission is over."""
        track.submission.close()
        del self.tracks[track.submission.name]

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

    def look_at_all(self) -> None:
        """The next look is at every record that is missing."""
        self.last_full = -1e9

    def is_missing(self, run_id: str) -> bool:
        """Whether a run has no record, as the disk says now."""
        return not records.has_record(self.runs, run_id)

    def held(self, run_id: str) -> bool:
        """Whether somebody trains a run, as its lease says."""
        return lease.fresh(records.folder(self.runs, run_id))

    def blocked(self, run: Run) -> bool:
        """Whether a run can never start: its teacher ended without a network."""
        if run.teacher is None:
            return False
        record = records.read(self.runs, run.teacher.run)
        if record is not None:
            return record.status != "done"
        above = self.pending.get(run.teacher.run)
        return above is not None and self.blocked(above)

    def hopeless(self) -> bool:
        """Whether what is left will never get a record."""
        if self.claims.keys() & self.pending.keys():
            return False
        return all(self.blocked(run) for run in self.pending.values())

    def due(self) -> list[Run]:
        """Missing runs that nobody trains or is to train, and that can be trained."""
        return [
            run
            for run in self.pending.values()
            if run.id not in self.claims
            and self.is_missing(run.id)
            and not self.blocked(run)
            and not self.held(run.id)
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
