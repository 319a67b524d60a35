"""``kdbench plan``: the estimated cost of a grid before training."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdbench.cli.planned_device import (
    PlannedDevice,
    available,
    device_of,
    source,
    speed_on,
    warnings,
)
from kdbench.cli.status import rows, states
from kdbench.cost.cohort_memory import Footprint, footprint, process_bytes, streams
from kdbench.cost.estimate import Estimator, RunCost
from kdbench.cost.gpu_speed import GpuSpeed
from kdbench.cost.groups import check_groups
from kdbench.cost.speed import Speed
from kdbench.data.readers.by_name import absent_folders
from kdbench.errors import UserError
from kdbench.execution.memory_fit import USABLE
from kdbench.execution.work import cohorts, missing, workers
from kdbench.grid.expand import Expansion
from kdbench.grid.grid import Executor, Grid
from kdbench.grid.run import Cell, Run
from kdbench.runs import records

SECONDS = 3.0
"""Time limit for counting the methods' cost; later pairs get rough estimates."""


@dataclass(frozen=True)
class PlanLine:
    """The estimated cost of a cell.

    Attributes:
        runs: number of runs; 0 for an imported teacher.
        states: the runs' states.
        cost: cost of one run.
        hours: training time of one run.
    """

    pair: str
    method: str
    runs: int
    states: tuple[str, ...]
    cost: RunCost
    hours: float


@dataclass(frozen=True)
class Plan:
    """The estimated cost of a grid.

    Attributes:
        lines: a line per cell.
        states: state of every run of the grid.
        to_train: number of runs without a record.
        cohorts: number of cohorts that train them.
        hours: training time of these runs, each as if it trained alone.
        at_once: number of cohorts that train at once; None if this machine cannot tell.
        largest: memory of the cohort that needs most; None if there is nothing to train.
        device: what the plan is for.
        lanes: learners whose CUDA graphs run at once on a GPU.
        sources: what the hours are based on, in sentences.
        warnings: settings with which this machine cannot train.
    """

    grid: Grid
    lines: tuple[PlanLine, ...]
    states: Mapping[str, str]
    to_train: int
    cohorts: int
    hours: float
    at_once: int | None
    largest: Footprint | None
    device: PlannedDevice
    lanes: int
    sources: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def rough(self) -> bool:
        """Whether the cost of a line was estimated from another pair."""
        return any(line.cost.rough for line in self.lines)

    def bytes_alone(self, line: PlanLine) -> float:
        """Return the bytes that a run of a cell needs on this machine's GPU if it trains alone."""
        return footprint([line.cost], None, streams=self.lanes).total

    def too_large(self, memory: float) -> bool:
        """Check whether bytes do not fit on this machine's GPU; False if its size is unknown."""
        return bool(self.device.memory) and memory > USABLE * self.device.memory


def estimated(
    grid: Grid, expansion: Expansion, runs: Path, tflops: float | None, *, exact: bool = False
) -> Plan:
    """Estimate the cost of a grid.

    Args:
        grid: the grid.
        expansion: its runs.
        runs: folder of runs.
        tflops: sustained TFLOP/s of the device; None to time the networks on this machine.
        exact: count every method on every pair, without a time limit.

    Raises:
        UserError: a folder of training images is missing, the GPU cannot be used, or a group of
            networks is impossible or too large.
    """
    todo = _missing(expansion.runs, runs)
    check_folders(grid, todo)
    pending = {run.id for run in todo}
    loaded = records.load(runs, (run.id for run in expansion.runs if run.id not in pending))
    state_of = states(expansion.runs, loaded, {})
    process = process_bytes()  # before counting and timing
    device = device_of(grid.executor)
    check_groups(grid.source, todo, available(grid.executor, device))
    speed = speed_on(grid.executor, device, exact)
    lanes = streams(grid.executor) if device.is_gpu else 0
    hours: dict[str, float] = {}
    costs: dict[str, RunCost] = {}
    estimator = Estimator() if exact else Estimator(SECONDS)
    lines = []
    for pair, cell in rows(expansion):
        line = _line(pair, cell, state_of, speed, tflops, estimator)
        lines.append(line)
        missing_ids = [run.id for run in cell.runs if run.id in pending]
        hours.update(dict.fromkeys(missing_ids, line.hours))
        costs.update(dict.fromkeys(missing_ids, line.cost))
    n = _at_once(grid.executor, device, tflops)
    groups = cohorts(todo, most=grid.executor.cohort, workers=n)
    # Hours on this CPU say nothing about workers with GPUs.
    known = (tflops or not device.elsewhere) and grid.executor.kind != "slurm"
    at = process if not device.is_gpu else None
    largest = max(
        (footprint([costs[run.id] for run in group], at, streams=lanes) for group in groups),
        key=lambda cohort: cohort.total,
        default=None,
    )
    return Plan(
        grid,
        tuple(lines),
        state_of,
        to_train=len(todo),
        cohorts=len(groups),
        hours=sum(hours.values()),
        at_once=n if known else None,
        largest=largest,
        device=device,
        lanes=lanes,
        sources=tuple(source(tflops, grid.executor, device, speed)),
        warnings=tuple(warnings(grid.executor, todo, device)),
    )


def _at_once(executor: Executor, device: PlannedDevice, tflops: float | None) -> int:
    """Return how many cohorts train at once on the device whose speed the plan assumes."""
    if executor.kind == "slurm":
        return 1  # as the runner groups them; the cluster decides how many jobs run at once
    if device.elsewhere or (tflops and device.gpu is None):
        return executor.workers or 1  # --tflops is the speed of one device, not of this CPU's cores
    return workers(executor)


def check_folders(grid: Grid, todo: Iterable[Run]) -> None:
    """Check that folders of training images exist: the cost depends on the number of images.

    Raises:
        UserError: folders are missing, one line each.
    """
    absent: dict[Path, str] = {}
    for dataset in dict.fromkeys(run.dataset for run in todo):
        absent |= absent_folders(dataset)
    if absent:
        raise UserError(
            "\n".join(
                f"{grid.source}: no image folder {root}: put images there, {content}, or set the "
                "data set's root to a folder that has them"
                for root, content in absent.items()
            )
        )


def _missing(expanded: Sequence[Run], runs: Path) -> list[Run]:
    """Return the runs without a record; only runs with a folder need a look at the disk."""
    try:
        folders = set(os.listdir(runs))  # noqa: PTH208 - only names are needed
    except OSError:
        folders = set()
    begun = {run.id for run in expanded if run.id in folders}
    unfinished = {run.id for run in missing((run for run in expanded if run.id in begun), runs)}
    return [run for run in expanded if run.id not in begun or run.id in unfinished]


def _line(
    pair: str,
    cell: Cell,
    state_of: Mapping[str, str],
    speed: Speed | GpuSpeed,
    tflops: float | None,
    estimator: Estimator,
) -> PlanLine:
    if not cell.runs:
        return PlanLine(pair, cell.method, 0, (), RunCost(), 0.0)
    cost = estimator(cell.runs[0])
    state = tuple(state_of[run.id] for run in cell.runs)
    seconds = cost.flops / (tflops * 1e12) if tflops else speed.seconds_of(cell.runs[0], cost)
    return PlanLine(pair, cell.method, len(cell.runs), state, cost, seconds / 3600)
