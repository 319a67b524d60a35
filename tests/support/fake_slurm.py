"""A fake Slurm: its commands answer from states that a test sets, on a simulated clock."""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_grids import done
from tiny_runs import alone, taught

from kdbench.execution.events import Event
from kdbench.execution.slurm import code_snapshot, runner, submit
from kdbench.execution.slurm.runner import SlurmRunner
from kdbench.execution.slurm.scheduler import Scheduler, SchedulerError
from kdbench.execution.slurm.submissions import Submission
from kdbench.grid.grid import Executor
from kdbench.grid.resources import Slurm
from kdbench.grid.run import Run
from kdbench.runs import records

DONE = "COMPLETED"


class Clock:
    """A simulated clock, which advances only by ``sleep``."""

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
        listed: state in squeue; None: not listed.
        reason: in squeue, why the job waits.
        accounted: state in sacct; None: no entry.
        code: exit code in sacct.
        ready: when the job ends by itself.
    """

    submission: Submission
    index: int
    after: tuple[str, ...]
    listed: str | None = "PENDING"
    reason: str = "Priority"
    accounted: str | None = None
    code: str = "0:0"
    ready: float = 0.0


@dataclass
class FakeSlurm:
    """A scheduler that answers like Slurm.

    Attributes:
        seconds: duration of a job.
        slots: jobs that run at once.
        jobs: by id.
        faults: by command, a function that returns the message it fails with, or None.
        on_start: called with a job that starts; returns the state in which it ends, by default
            COMPLETED with records; None: the job never ends.
        submissions: each submission and its parameters.
        cancelled: ids passed to scancel.
        max_array: MaxArraySize.
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
        """Run one of Slurm's commands."""
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
        """Replace submitit's call of sbatch."""
        scheduler.calls["sbatch"] += 1
        fault = self.faults.get("sbatch", lambda: None)()
        if fault is not None and not fault.startswith("after: "):
            raise SchedulerError(fault)
        number = str(next(self.numbers))
        dependency = parameters["additional_parameters"].get("dependency", "")
        after = tuple(dependency.removeprefix("afterok:").split(":")) if dependency else ()
        single = len(submission.elements) == 1
        for index in range(len(submission.elements)):
            name = number if single else f"{number}_{index}"
            self.jobs[name] = Job(submission, index, after)
        self.submissions.append((submission, parameters))
        if fault is not None:
            raise SchedulerError(fault.removeprefix("after: "))
        return number

    def advance(self) -> None:
        """Start and end the jobs that are due."""
        for name, job in self.jobs.items():
            if job.listed == "RUNNING" and job.ready <= self.clock.now:
                self.end(name, DONE)
        running = sum(job.listed == "RUNNING" for job in self.jobs.values())
        for name, job in self.jobs.items():
            if job.listed != "PENDING" or running >= self.slots or job.reason == "stuck":
                continue
            before = [self.jobs[other].accounted for other in job.after if other in self.jobs]
            if any(state not in (None, DONE, "RUNNING") for state in before):
                job.listed, job.accounted = None, "CANCELLED"
            elif all(state == DONE for state in before) and job.reason == "Priority":
                self._start(name, job)
                running += 1

    def _start(self, name: str, job: Job) -> None:
        state = self.on_start(name, job)
        if state == DONE:
            job.listed, job.accounted, job.reason = "RUNNING", "RUNNING", "None"
            job.ready = self.clock.now + self.seconds
        elif state is None:
            job.listed = job.accounted = "RUNNING"
            job.ready = float("inf")
        elif job.listed == "PENDING":
            job.listed, job.accounted = None, state

    def end(self, name: str, state: str) -> None:
        """End a job; if it is COMPLETED, write its records."""
        job = self.jobs[name]
        if state == DONE:
            for run_id in job.submission.ids(job.index):
                records.write(Path(job.submission.runs), done(run_id))
        job.listed, job.accounted = None, state

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
            return "\n".join(
                key
                for key, job in self.jobs.items()
                if job.submission.name == name and job.accounted
            )
        option = next(c for c in command if c.startswith("--jobs="))
        numbers = option.removeprefix("--jobs=").split(",")
        return "\n".join(
            f"{key}|{job.accounted}|{job.code}|n1"
            for key, job in self.jobs.items()
            if job.accounted and key.partition("_")[0] in numbers
        )

    def _scancel(self, command: list[str]) -> str:
        for cancelled in command[1:]:
            self.cancelled.append(cancelled)
            for key, job in self.jobs.items():
                if cancelled in (key, key.partition("_")[0]) and job.listed is not None:
                    job.listed, job.accounted = None, "CANCELLED"
        return ""

    def _sinfo(self, command: list[str]) -> str:
        return "main*|8|16000|gpu:2\nlow|4|8000|(null)\n"

    def _scontrol(self, command: list[str]) -> str:
        return f"Configuration data\nMaxArraySize            = {self.max_array}\n"


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """Replace Slurm, the runner's clock and code snapshots for the runners of this test."""
    fake = FakeSlurm(Clock())
    clock = SimpleNamespace(monotonic=fake.clock.monotonic, sleep=fake.clock.sleep)
    monkeypatch.setattr(runner, "time", clock)
    monkeypatch.setattr(submit, "_sbatch", fake.sbatch)
    monkeypatch.setattr(code_snapshot, "take", lambda runs, todo: runs / "code")
    return fake


# --- runners on a fake Slurm ------------------------------------------------------------------


def teacher_and_students(seeds: int = 2) -> list[Run]:
    """Return a teacher, baselines and students."""
    teacher = alone(student="r8w4")
    students = [taught(teacher, "kd", seed=seed) for seed in range(seeds)]
    return [teacher, *(alone(seed) for seed in range(seeds)), *students]


def slurm_executor(**values: Any) -> Executor:
    """Create the settings of a grid; ``cohort`` and ``ranks`` belong to the executor."""
    more = {key: values.pop(key) for key in ("cohort", "ranks") if key in values}
    return Executor(kind="slurm", slurm=Slurm(**values), **more)


def make_runner(
    runs: Sequence[Run], folder: Path, fake: FakeSlurm, executor: Executor | None = None
) -> SlurmRunner:
    """Create a runner that uses the fake."""
    executor = executor or slurm_executor()
    return SlurmRunner(runs, "g", folder, folder / "data", executor, fake.scheduler())


def run_to_end(
    runs: Sequence[Run], folder: Path, fake: FakeSlurm, executor: Executor | None = None
) -> list[Event]:
    """Submit and watch until the runner ends; return its events."""
    folder.mkdir(exist_ok=True)
    return list(make_runner(runs, folder, fake, executor).events())


def ends_once(state: str, run_id: str = "") -> Callable[[str, Job], str | None]:
    """Let the first job of a run end in ``state``, and all others finish; "": of any run."""
    ended: set[str] = set()

    def on_start(name: str, job: Job) -> str | None:
        ids = job.submission.ids(job.index)
        if not ended and (not run_id or run_id in ids):
            ended.update(ids)
            return state
        return DONE

    return on_start


def lines_of(events: list[Event]) -> str:
    """Join the lines of events."""
    return "\n".join(event.line for event in events if event.line)


def history(runs: Path, run_id: str) -> list[str]:
    """Read the attempts in a run's record."""
    record = json.loads((runs / run_id / "record.json").read_bytes())
    return list(record["attempts"])
