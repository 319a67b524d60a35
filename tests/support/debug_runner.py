"""A few runs of a grid, and a runner that trains them in the test's process."""

from pathlib import Path

from tiny_runs import alone, taught

from kdbench.execution import local
from kdbench.execution.events import Event
from kdbench.grid.grid import Executor
from kdbench.grid.run import Run

DEBUG = Executor(kind="debug", device="cpu")


def teacher_and_students(seeds: int = 2) -> list[Run]:
    """Return a teacher, baselines and students, in the order in which a grid is expanded."""
    teacher = alone(student="r8w4")
    students = [
        taught(teacher, name, seed=seed) for seed in range(seeds) for name in ("kd", "at", "semckd")
    ]
    return [teacher, *(alone(seed) for seed in range(seeds)), *students]


def train_all(runs: list[Run], folder: Path, executor: Executor = DEBUG) -> list[Event]:
    """Train all runs and return the runner's events."""
    return list(local.run_all(runs, folder, Path("data"), executor))
