"""``kdbench plan``: the estimated cost of a grid before training."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdbench.cli.planned_device import PlannedDevice, device_of, source, speed_on, warnings
from kdbench.cli.status import count, rows, states
from kdbench.cost.cohort_memory import Footprint, footprint, process_bytes, streams
from kdbench.cost.estimate import Estimator, RunCost
from kdbench.cost.gpu_speed import GpuSpeed
from kdbench.cost.speed import Speed
from kdbench.data.readers.by_name import available
from kdbench.errors import UserError
from kdbench.execution.memory_fit import USABLE
from kdbench.execution.work import cohorts, missing, workers
from kdbench.grid.expand import Expansion
from kdbench.grid.grid import Executor, Grid
from kdbench.grid.run import Cell, Run
from kdbench.runs import records
from kdbench.wording import duration

SECONDS = 3.0
"""Time limit for counting the methods' cost; later pairs get rough estimates."""

ROUGH = ("~ estimated from another pair; --exact counts every method on every pair",)


@dataclass(frozen=True)
class PlanLine:
    """The estimated cost of a cell.

    Attributes:
        runs: number of runs.
        state: counts of the runs' states.
        cost: cost of one run.
        hours: training time of one run.
    """

    pair: str
    method: str
    runs: int
    state: str
    cost: RunCost
    hours: float


def render(
    grid: Grid, expansion: Expansion, runs: Path, tflops: float | None, *, exact: bool = False
) -> str:
    """Return one line per cell with the cost of a run, and the totals.

    Args:
        grid: the grid.
        expansion: its runs.
        runs: folder of runs.
        tflops: sustained TFLOP/s of the device; None to time the networks on this machine.
        exact: count every method on every pair, without a time limit.

    Raises:
        UserError: a folder of training images is missing, or the GPU cannot be used.
    """
    todo = _missing(expansion.runs, runs)
    check_folders(grid, todo)
    pending = {run.id for run in todo}
    loaded = records.load(runs, (run.id for run in expansion.runs if run.id not in pending))
    state_of = states(expansion.runs, loaded, {})
    process = process_bytes()  # before counting and timing
    device = device_of(grid.executor)
    speed = speed_on(grid.executor, device, exact)
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
    total = sum(hours.values())
    n = _at_once(grid.executor, device, tflops)
    groups = cohorts(todo, most=grid.executor.cohort, workers=n)
    # Hours on this CPU say nothing about workers with GPUs.
    known = (tflops or not device.elsewhere) and grid.executor.kind != "slurm"
    at_once = f", {n} at a time: {duration(3600 * total / n)}" if known else ""
    at = process if not device.is_gpu else None
    lanes = streams(grid.executor) if device.is_gpu else 0
    largest = max(
        (footprint([costs[run.id] for run in group], at, streams=lanes) for group in groups),
        key=lambda cohort: cohort.total,
        default=None,
    )
    together = (
        "a cohort shares its teacher and the GPU"
        if device.is_gpu
        else "the runs of a cohort share their teacher"
    )
    return "\n".join(
        [
            *_table(lines, device, lanes, {str(pair): pair.options_text for pair in grid.pairs}),
            "",
            f"{grid.name}: {len(expansion.runs):,} runs ({count(state_of.values())}); "
            f"{len(todo):,} to train in {len(groups):,} cohorts",
            f"{duration(3600 * total)} of training{at_once}",
            *source(tflops, grid.executor, device, speed),
            *([_largest(largest, device)] if largest else []),
            f"Runs are counted separately, although {together}.",
            *ROUGH[: any(line.cost.rough for line in lines)],
            *warnings(grid.executor, todo, device),
        ]
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
    roots = dict.fromkeys(Path(run.dataset.root) for run in todo if run.dataset.root)
    absent = [root for root in roots if not available("imagefolder", root)[0]]
    if absent:
        raise UserError(
            "\n".join(
                f"{grid.source}: no image folder {root}: put images there, train/CLASS/* and "
                "test/CLASS/*, or set the data set's root to a folder that has them"
                for root in absent
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


def _largest(cohort: Footprint, device: PlannedDevice) -> str:
    """Describe the cohort that needs most memory."""
    shared, own = cohort.process + cohort.data + cohort.teacher, cohort.held + cohort.working
    where, library = ("a GPU", "CUDA") if device.is_gpu else ("a CPU", "torch")
    line = (
        f"largest cohort: {cohort.total / 2**30:.1f} GB on {where} "
        f"({shared / 2**30:.1f} {library}, data, teacher; {own / 2**30:.1f} learners)"
    )
    if device.memory and cohort.total > USABLE * device.memory:
        line += f"\n{device.name} has {device.memory / 2**30:.1f} GB: larger cohorts are split"
    return line


def _too_large(cost: RunCost, device: PlannedDevice, lanes: int) -> str:
    """Say that a run alone may not fit on this machine's GPU; "" if it does."""
    needed = footprint([cost], None, streams=lanes).total if device.memory else 0.0
    if needed <= USABLE * device.memory:
        return ""
    return (
        f"needs {needed / 2**30:.1f} GB of the GPU's {device.memory / 2**30:.1f} GB even alone: it "
        "may run out of memory"
    )


def _line(
    pair: str,
    cell: Cell,
    state_of: dict[str, str],
    speed: Speed | GpuSpeed,
    tflops: float | None,
    estimator: Estimator,
) -> PlanLine:
    if not cell.runs:
        return PlanLine(pair, cell.method, 0, "imported", RunCost(), 0.0)
    cost = estimator(cell.runs[0])
    state = count(state_of[run.id] for run in cell.runs)
    seconds = cost.flops / (tflops * 1e12) if tflops else speed.seconds_of(cell.runs[0], cost)
    return PlanLine(pair, cell.method, len(cell.runs), state, cost, seconds / 3600)


def _table(
    lines: Sequence[PlanLine], device: PlannedDevice, lanes: int, options: Mapping[str, str]
) -> Iterable[str]:
    """Format lines under their pairs' names and options, in 80 columns unless names are long."""
    method_width = min(28, max((len(line.method) for line in lines), default=0))
    state_width = max((len(line.state) for line in lines), default=0)
    yield (
        f"  {'method':<{method_width}}  {'runs':>4}  {'state':<{state_width}}  {'TFLOP/run':>9}  "
        f"{'time/run':>8}  {'memory':>8}"
    )
    last = None
    for line in lines:
        if line.pair != last:
            last = line.pair
            yield last
            if options.get(last):
                yield f"  ({options[last]})"
        start = f"  {line.method:<{method_width}}  {line.runs:>4}  {line.state:<{state_width}}"
        if line.cost.problem:
            yield start.rstrip()
            yield f"    {line.cost.problem}"
        elif not line.runs:
            yield start.rstrip()
        else:
            yield (
                f"{start}  {_flops(line.cost.flops):>9}  {duration(3600 * line.hours):>8}  "
                f"{line.cost.memory / 2**20:>5,.0f} MB{' ~' if line.cost.rough else ''}"
            )
            if too_large := _too_large(line.cost, device, lanes):
                yield f"    {too_large}"


def _flops(flops: float) -> str:
    """Format TFLOP with three significant digits."""
    value = flops / 1e12
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
