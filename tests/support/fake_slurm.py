"""A scheduler's commands without a scheduler: states that a test sets, on a clock that jumps."""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kdbench.execution.slurm import runner, submit
from kdbench.execution.slurm.scheduler import Scheduler, SchedulerError
from kdbench.execution.slurm.submissions import Submission
from kdbench.runs import records
from kdbench.runs.records import Record

DONE = "COMPLETED"


class Clock:
    """Seconds that pass only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Job:
    """An element of an array.

    Attributes:
        listed: what squeue says, None: nothing. said: what sacct says, None: nothing.
        ready: when it ends by itself.
    """

    submission: Submission
    index: int
    after: tuple[str, ...]
    listed: str | None = "PENDING"
    reason: str = "Priority"
    said: str | None = None
    code: str = "0:0"
    ready: float = 0.0


@dataclass
class FakeSlurm:
    """Answers like Slurm.

    Attributes:
        clock: what passes. seconds: a job takes. slots: jobs that run at once.
        jobs: by id. faults: command -> what it fails with, asked at each call.
        on_start: called with a job that starts; returns how it ends, COMPLETED with records unless
            it says otherwise; None: the job never ends.
    """

    clock: Clock
    seconds: float = 20.0
    slots: int = 1000
    jobs: dict[str, Job] = field(default_factory=dict)
    faults: dict[str, Callable[[], str | None]] = field(default_factory=dict)
    on_start: Callable[[str, Job], str | None] = lambda name, job: DONE
    submissions: list[tuple[Submission, dict[str, Any]]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    max_array: int = 1001
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(100))

    def scheduler(self) -> Scheduler:
        return Scheduler(run=self.run, gap=0.0)

    def run(self, command: Sequence[str], timeout: float) -> str:
        """One of Slurm's commands."""
        name = command[0]
        fault = self.faults.get(name, lambda: None)()
        if fault is not None:
            self.clock.sleep(9.0)
            raise SchedulerError(f"{name}: {fault}")
        self.advance()
        answer: str = getattr(self, f"_{name}")(list(command))
        return answer

    def sbatch(
        self, submission: Submission, parameters: dict[str, Any], scheduler: Scheduler
    ) -> str:
        """In place of submitit's call of sbatch."""
        scheduler.calls["sbatch"] += 1
        fault = self.faults.get("sbatch", lambda: None)()
        if fault is not None and not fault.startswith("after: "):
            raise SchedulerError(fault)
        number = str(next(self.numbers))
        more = parameters["additional_parameters"].get("dependency", "")
        after = tuple(more.removeprefix("afterok:").split(":")) if more else ()
        single = len(submission.elements) == 1
        for index in range(len(submission.elements)):
            name = number if single else f"{number}_{index}"
            self.jobs[name] = Job(submission, index, after)
        self.submissions.append((submission, parameters))
        if fault is not None:
            raise SchedulerError(fault.removeprefix("after: "))
        return number

    def advance(self) -> None:
        """Let time do its work: jobs start and end."""
        for name, job in self.jobs.items():
            if job.listed == "RUNNING" and job.ready <= self.clock.now:
                self.end(name, DONE)
        running = sum(job.listed == "RUNNING" for job in self.jobs.values())
        for name, job in self.jobs.items():
            if job.listed != "PENDING" or running >= self.slots or job.reason == "stuck":
                continue
            before = [self.jobs[other].said for other in job.after if other in self.jobs]
            if any(said not in (None, DONE, "RUNNING") for said in before):
                job.listed, job.said = None, "CANCELLED"
            elif all(said == DONE for said in before) and job.reason == "Priority":
                self._start(name, job)
                running += 1

    def _start(self, name: str, job: Job) -> None:
        how = self.on_start(name, job)
        if how == DONE:
            job.listed, job.said, job.reason = "RUNNING", "RUNNING", "None"
            job.ready = self.clock.now + self.seconds
        elif how is None:
            job.listed = job.said = "RUNNING"
            job.ready = float("inf")
        elif job.listed == "PENDING":
            job.listed, job.said = None, how

    def end(self, name: str, state: str) -> None:
        """A job ends; one that is COMPLETED leaves its records."""
        job = self.jobs[name]
        if state == DONE:
            for run_id in job.submission.ids(job.index):
                records.write(Path(job.submission.runs), Record(run_id, "done"))
        job.listed, job.said = None, state

    # -- commands ---------------------------------------------------------------------------

    def _squeue(self, command: list[str]) -> str:
        name = next((c.removeprefix("--name=") for c in command if c.startswith("--name=")), None)
        lines = []
        for key, job in self.jobs.items():
            if job.listed is None or name not in (None, job.submission.name):
                continue
            array, _, index = key.partition("_")
            if name is not None:
                lines.append(array)
                continue
            cells = (array, index or "N/A", job.listed, job.reason, "", job.submission.name)
            lines.append("|".join(cells))
        return "\n".join(lines)

    def _sacct(self, command: list[str]) -> str:
        name = next((c.removeprefix("--name=") for c in command if c.startswith("--name=")), None)
        if name is not None:
            found = [k for k, job in self.jobs.items() if job.submission.name == name and job.said]
            return "\n".join(found)
        asked = next(c for c in command if c.startswith("--jobs=")).removeprefix("--jobs=")
        wanted = asked.split(",")
        return "\n".join(
            f"{key}|{job.said}|{job.code}|n1"
            for key, job in self.jobs.items()
            if job.said and key.partition("_")[0] in wanted
        )

    def _scancel(self, command: list[str]) -> str:
        for wanted in command[1:]:
            self.cancelled.append(wanted)
            for key, job in self.jobs.items():
                if wanted in (key, key.partition("_")[0]) and job.listed is not None:
                    job.listed, job.said = None, "CANCELLED"
        return ""

    def _sinfo(self, command: list[str]) -> str:
        return "main*|8|16000|gpu:2\nlow|4|8000|(null)\n"

    def _scontrol(self, command: list[str]) -> str:
        return f"Configuration data\nMaxArraySize            = {self.max_array}\n"


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """A fake Slurm in place of the real one, for runners made in this test."""
    clock = Clock()
    fake = FakeSlurm(clock)
    install(fake, monkeypatch)
    return fake


def install(fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a fake where the runner would call submitit and look at the clock."""
    clock = SimpleNamespace(monotonic=fake.clock.monotonic, sleep=fake.clock.sleep)
    monkeypatch.setattr(runner, "time", clock)
    monkeypatch.setattr(submit, "_sbatch", fake.sbatch)


def histories(runs: Path, run_id: str) -> list[str]:
    """What a run's record says of its attempts."""
    record = json.loads((runs / run_id / "record.json").read_bytes())
    return list(record["attempts"])
