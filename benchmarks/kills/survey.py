"""Trainings with a fault at every file operation, each followed by a training without."""

import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.kills.child import FAILED
from benchmarks.kills.file_faults import Fault
from benchmarks.kills.trainings import Outcome, Scenario, Trainings
from kdbench.execution import leftovers

FAULTS: tuple[Fault, ...] = ("kill", "full")


@dataclass
class Survey:
    """What faults did to the trainings of a scenario.

    Attributes:
        points: faults tried.
        lost: points after which more steps were trained again than those since the last checkpoint.
        changed: points after which a bit of a result, curve or weight differs.
        litter: points after which files are left over or missing in the end.
        unclear: points with a full disk whose message is not one line that names a file.
        repeated: steps trained twice, over all points.
    """

    points: int = 0
    lost: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    litter: list[str] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)
    repeated: int = 0

    @property
    def clean(self) -> bool:
        """Whether nothing was lost, changed, left over or unclear."""
        return not (self.lost or self.changed or self.litter or self.unclear)


def survey(scenario: Scenario, folder: Path, *, every: int = 1, first: int = 0) -> Survey:
    """Try a fault at every file operation.

    Args:
        scenario: what to train.
        folder: for the trainings.
        every: try only every so many operations.
        first: number of the first operation to try.
    """
    trainings = Trainings(scenario, folder)
    shutil.copytree(trainings.base, folder / "whole")
    trainings.train(folder / "whole", trainings.runs)
    expected = trainings.numbers(folder / "whole")
    trainings.stop_before()
    counted = trainings.train(
        trainings.fresh("count"), trainings.runs, steps=scenario.steps
    ).operations
    trainings.train(folder / "count", trainings.runs)
    files = trainings.files(folder / "count")
    found = Survey()
    for at in range(first, len(counted), every):
        for fault in FAULTS:
            name = f"{fault} at {at}: {counted[at]}"
            runs = trainings.fresh("runs")
            one = trainings.train(runs, trainings.runs, steps=scenario.steps, at=at, fault=fault)
            expected_codes = (-signal.SIGKILL,) if fault == "kill" else (0, FAILED)
            if one.code not in expected_codes:
                raise RuntimeError(f"{name}: exit code {one.code}: {one.message}")
            two = trainings.train(runs, trainings.runs)
            if two.code:
                raise RuntimeError(f"{name}: resumed with exit code {two.code}: {two.message}")
            leftovers.sweep(trainings.runs, runs)  # as ``kdbench run`` does
            found.points += 1
            found.lost += [name] if any(_lost(trainings, one, two)) else []
            found.repeated += _repeated(trainings, one, two)
            found.changed += [name] if trainings.numbers(runs) != expected else []
            found.litter += [name] if trainings.files(runs) != files else []
            found.unclear += [name] if one.code == FAILED and not _clear(one, runs) else []
    return found


def _lost(trainings: Trainings, one: Outcome, two: Outcome) -> Iterator[bool]:
    """Check, for each run, whether steps before its last completed checkpoint were repeated."""
    for before, safe, again in zip(trainings.before, one.safe, two.trained, strict=True):
        yield again > max(0, trainings.total - max(before, safe))


def _repeated(trainings: Trainings, one: Outcome, two: Outcome) -> int:
    trained = sum(trainings.before) + sum(one.trained) + sum(two.trained)
    return trained - len(trainings.runs) * trainings.total


def _clear(outcome: Outcome, runs: Path) -> bool:
    return "\n" not in outcome.message and outcome.message.startswith(f"{runs}/")
