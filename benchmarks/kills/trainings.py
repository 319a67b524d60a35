"""Tiny trainings that end or stop early in a separate process, with a fault on the way."""

import math
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from benchmarks.kills.child import (
    STOPPED,
    SignalsAfterSteps,
    free_port,
    rank_variables,
    reached,
    train_with_faults,
)
from benchmarks.kills.file_faults import Fault, FileFaults
from kdbench.data.dataset import load
from kdbench.execution.slurm import job, submissions
from kdbench.execution.slurm.submissions import Submission
from kdbench.execution.work import Work
from kdbench.execution.worker import Worker
from kdbench.grid.expand import expand
from kdbench.grid.parsing import parse
from kdbench.grid.run import Run
from kdbench.runs import records
from kdbench.training import checkpoint, ranks

GRID: dict[str, Any] = {
    "name": "kills",
    "dataset": {"name": "digits", "per_class": 7},
    "protocol": {"preset": "demo", "epochs": 2, "batch_size": 16},
    "seeds": [0],
    "pairs": ["r8w4 -> r8w3"],
    "methods": ["kd", "at", "sp"],
    "report": {"baseline": "student"},
    "executor": {"kind": "debug", "device": "cpu"},
}
"""70 images: 4 steps an epoch."""
SECONDS = 120.0
"""After this time a process counts as hanging."""


@dataclass(frozen=True)
class Scenario:
    """A training to end at each of its file operations.

    Attributes:
        methods: of the runs, which train as one cohort.
        ranks: number of processes that train together.
        slurm: train as a job of Slurm does.
        before: steps of each run before the operations that count.
        steps: steps of each run during which they count; None: until all runs have ended.
        checkpoint_seconds: as in a grid's executor.
    """

    methods: tuple[str, ...] = ("kd",)
    ranks: int = 1
    slurm: bool = False
    before: int = 6
    steps: int | None = None
    checkpoint_seconds: float = 60.0


COHORT = ("kd", "at", "sp")
SCENARIOS = {
    "end, one run": Scenario(),
    "end, cohort of three": Scenario(COHORT),
    "end, two ranks": Scenario(ranks=2),
    "end, Slurm job": Scenario(slurm=True),
    "checkpoint, one run": Scenario(before=2, steps=3, checkpoint_seconds=0.0),
    "checkpoint, cohort of three": Scenario(COHORT, before=2, steps=2, checkpoint_seconds=0.0),
    "checkpoint, two ranks": Scenario(ranks=2, before=2, steps=2, checkpoint_seconds=0.0),
}


@dataclass
class Outcome:
    """What a training process did.

    Attributes:
        code: its exit code, negative for a signal.
        trained: steps that it trained, by run.
        safe: steps in the last checkpoint that it completed, by run; -1: none.
        operations: its file operations in the folder of runs.
        message: why training could not continue.
    """

    code: int
    trained: list[int]
    safe: list[int]
    operations: list[str] = field(default_factory=list)
    message: str = ""


class Trainings:
    """Trainings of a scenario in folders of runs below ``folder``."""

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        """Train the runs' teacher."""
        torch.set_num_threads(1)
        self.scenario, self.folder = scenario, folder
        runs = expand(parse(GRID, source="benchmarks.kills")).runs
        self.runs = [run for run in runs if run.method in scenario.methods]
        self.teacher = next(run for run in runs if run.teacher is None and run.student == "r8w4")
        grid = parse(GRID, source="benchmarks.kills")
        changes = {"ranks": scenario.ranks, "checkpoint_seconds": scenario.checkpoint_seconds}
        self.executor = grid.executor.model_copy(update=changes)
        # Imports take seconds: once, before forking. The first optimiser imports torch._dynamo.
        load(grid.dataset, Path("data"), torch.device("cpu"))
        torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])
        self.base = folder / "base"
        self._check(self.train(self.base, [self.teacher]))
        self.before = [0] * len(self.runs)

    @property
    def total(self) -> int:
        """Steps of each run."""
        return self.runs[0].training.epochs * (70 // self.runs[0].training.batch_size)

    def stop_before(self) -> None:
        """Train the runs in ``base`` to the checkpoint before the operations that count."""
        outcome = self.train(self.base, self.runs, steps=self.scenario.before)
        self._check(outcome)
        self.before = outcome.trained

    def fresh(self, name: str) -> Path:
        """Return a copy of ``base``."""
        target = self.folder / name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.base, target)
        return target

    @staticmethod
    def _check(outcome: Outcome) -> None:
        if outcome.code:
            raise RuntimeError(f"training without faults: exit code {outcome.code}: {outcome}")

    def train(
        self,
        folder: Path,
        runs: Sequence[Run],
        *,
        steps: int | None = None,
        at: int | None = None,
        fault: Fault = "kill",
    ) -> Outcome:
        """Train runs in separate processes; only the first has the fault.

        Args:
            folder: of the runs.
            runs: to train as one cohort.
            steps: stop after so many steps; None: train to the end.
            at: number of the file operation that fails; None: none.
            fault: how it fails.
        """
        fork = multiprocessing.get_context("fork")  # torch is imported already
        tally = fork.Array("i", [0] * len(runs) + [-1] * len(runs), lock=False)
        notes = self.folder / "notes"
        notes.write_text("")
        size = 1 if runs == [self.teacher] else self.scenario.ranks
        slurm = self.scenario.slurm and runs != [self.teacher]
        submission = self._submission(folder, runs) if slurm else None
        port = free_port()
        processes: list[BaseProcess] = []
        for rank in range(size):
            faults = FileFaults(folder, at if rank == 0 else None, fault)
            stop = partial(reached, tally, math.inf if steps is None else steps)
            train = partial(self._train, folder, runs, submission, stop)
            variables = rank_variables(rank, size, port) if size > 1 else {}
            target = partial(
                train_with_faults, train, runs, faults, tally, notes if rank == 0 else None
            )
            processes.append(fork.Process(target=target, args=(variables,), daemon=True))
        sys.stdout.flush()
        for process in processes:
            process.start()
        for process in processes:
            process.join(SECONDS)
            if process.is_alive():
                process.kill()
                raise RuntimeError(f"operation {at} ({fault}): a process hangs")
        operations, _, message = notes.read_text().partition("\0")
        trained, safe = list(tally[: len(runs)]), list(tally[len(runs) :])
        code = processes[0].exitcode
        assert code is not None
        return Outcome(code, trained, safe, operations.split("\n"), message)

    def _train(
        self, folder: Path, runs: Sequence[Run], submission: Path | None, stop: Callable[[], bool]
    ) -> int:
        """Train runs in this process; return the exit code."""
        if submission:
            os.environ |= {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0"}
            code = job.train(submission, 0, SignalsAfterSteps(stop))
            return 0 if code == STOPPED else code
        task = Work((tuple(runs),), folder, Path("data"), self.executor)
        with ranks.join_ranks("cpu", 20.0) as world:
            Worker(task, 0, stop, lambda beats, line: None, world).run()
        return 0

    def _submission(self, folder: Path, runs: Sequence[Run]) -> Path:
        """Write what a runner writes before it submits a job; return the submission's folder."""
        ids = tuple(run.id for run in runs)
        name = submissions.name_of("kills")
        executor = self.executor.model_dump(mode="json")
        values: tuple[Any, ...] = (name, "kills", str(folder), "data", "", executor, ((ids,),), {})
        submission = Submission(*values)
        submissions.write(submission, {run.id: run for run in runs})
        return submission.folder

    def numbers(self, folder: Path) -> list[Any]:
        """Return all that must be equal bit for bit: results, curves and weights of the runs."""
        found: list[Any] = []
        for run in self.runs:
            record = records.read(folder, run.id)
            assert record is not None
            checkpoint.trained(records.folder(folder, run.id) / checkpoint.NAME, record)
            lines = (folder / run.id / "history.csv").read_text().splitlines()
            curve = [line.rpartition(",")[0] for line in lines]  # without seconds
            found.append((repr(record.result), record.status, curve))
        return found

    def files(self, folder: Path) -> list[str]:
        """List the files of the runs."""
        return sorted(
            f"{run.id}/{path.name}" for run in self.runs for path in (folder / run.id).iterdir()
        )
