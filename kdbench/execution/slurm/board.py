"""The state of a grid on Slurm: the jobs assigned to its runs, and the runs that are due.

It reads the disk only; ``poller`` queries Slurm.
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

FULL_CHECK_SECONDS = 30.0
"""Time between checks of all missing records; those of running jobs are checked more often."""


@dataclass
class Track:
    """A submission and what this runner has observed of it.

    Attributes:
        since: when this runner first saw the submission.
        watches: observations by element.
        settled: elements that need no more waiting.
        job: Slurm's id; None until it is known.
    """

    submission: Submission
    since: float
    watches: dict[int, Watch] = field(default_factory=dict)
    settled: set[int] = field(default_factory=set)
    job: str | None = None

    def __post_init__(self) -> None:
        self.job = self.submission.job()

    def element(self, index: int) -> str | None:
        """Return Slurm's id of an element; None until it is known."""
        return self.submission.element(self.job, index)

    @property
    def over(self) -> bool:
        """Whether all elements are settled."""
        return len(self.settled) == len(self.submission.elements)


class Board:
    """The state of a grid on Slurm.

    Args:
        expanded: every run of the grid, teachers first.
        runs: folder of runs.

    Attributes:
        pending: runs without a record, by id.
        tracks: submissions by name, until they are over.
        claims: by a run's id, the submission and element that is to train the run.
        tries: by a run's id, how often the run was submitted.
        lines: text to show with the next event.
        trouble: the last line of ``say_once``.
        last_full: when all missing records were last checked.
        queue: the last answer of squeue, by job.
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
        """Load the unfinished submissions of earlier runners."""
        for submission in submissions.unfinished(self.runs):
            if submission.name not in self.tracks:
                self.claim(Track(submission, now))

    def claim(self, track: Track) -> None:
        """Assign its runs to a submission."""
        submission = track.submission
        self.tracks[submission.name] = track
        for index in range(len(submission.elements)):
            for run_id in submission.ids(index):
                self.claims[run_id] = (submission.name, index)
                tried = submission.attempts.get(run_id, 0) + 1
                self.tries[run_id] = max(self.tries[run_id], tried)

    def settle(self, track: Track, index: int) -> None:
        """Stop waiting for an element, and free its runs."""
        track.settled.add(index)
        for run_id in track.submission.ids(index):
            if self.claims.get(run_id) == (track.submission.name, index):
                del self.claims[run_id]

    def close(self, track: Track) -> None:
        """Stop tracking a submission that is over."""
        track.submission.close()
        del self.tracks[track.submission.name]

    def in_jobs(self) -> list[str]:
        """Return the missing runs that a job may be training now."""
        ids = []
        for run_id in self.pending:
            claim = self.claims.get(run_id)
            if claim is None:
                continue
            job = self.tracks[claim[0]].element(claim[1])
            listed = self.queue.get(job or "")
            if listed is None or listed.state != "PENDING":
                ids.append(run_id)
        return ids

    def collect(self, now: float) -> list[tuple[Run, Record]]:
        """Remove the runs that got a record from ``pending``, and return them."""
        ids = self.in_jobs()
        if now - self.last_full >= FULL_CHECK_SECONDS:
            self.last_full, ids = now, list(self.pending)
        ended = []
        for run_id in ids:
            record = records.read(self.runs, run_id)
            if record is not None:
                ended.append((self.pending.pop(run_id), record))
        return ended

    def check_all_next(self) -> None:
        """Make the next ``collect`` check every missing record."""
        self.last_full = -1e9

    def is_missing(self, run_id: str) -> bool:
        """Check on disk whether a run has no record."""
        return not records.has_record(self.runs, run_id)

    def held(self, run_id: str) -> bool:
        """Check by its lease whether a run is being trained."""
        return lease.fresh(records.folder(self.runs, run_id))

    def blocked(self, run: Run) -> bool:
        """Check whether a run can never start because no teacher was trained for it."""
        if run.teacher is None:
            return False
        record = records.read(self.runs, run.teacher.run)
        if record is not None:
            return record.status != "done"
        teacher = self.pending.get(run.teacher.run)
        return teacher is not None and self.blocked(teacher)

    def hopeless(self) -> bool:
        """Check whether no pending run can get a record any more."""
        if self.claims.keys() & self.pending.keys():
            return False
        return all(self.blocked(run) for run in self.pending.values())

    def due(self) -> list[Run]:
        """Return the runs to submit: missing, not assigned to a job, not held and not blocked."""
        return [
            run
            for run in self.pending.values()
            if run.id not in self.claims
            and self.is_missing(run.id)
            and not self.blocked(run)
            and not self.held(run.id)
        ]

    def unanswered(self) -> bool:
        """Check whether sbatch has not answered for some submission."""
        return any(track.job is None for track in self.tracks.values())

    def job_of(self, run_id: str) -> str | None:
        """Return the job that is to train a missing run, if any."""
        claim = self.claims.get(run_id)
        if claim is None or not self.is_missing(run_id):
            return None
        return self.tracks[claim[0]].element(claim[1])

    def say(self, line: str) -> None:
        """Show a line, unless it is empty."""
        if line:
            self.lines.append(line)

    def say_once(self, line: str) -> None:
        """Show a line, unless it was the last one shown by this method."""
        if line != self.trouble:
            self.trouble = line
            self.lines.append(line)
