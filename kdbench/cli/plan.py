"""``kdbench plan``: what a grid would cost, before anything is trained."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdbench.cli.status import count, rows, states
from kdbench.cost.cohort_memory import Footprint, footprint, process_bytes
from kdbench.cost.estimate import Estimator, RunCost
from kdbench.cost.speed import Speed
from kdbench.data.readers.by_name import available
from kdbench.errors import UserError
from kdbench.execution.work import cohorts, missing, workers
from kdbench.grid.expand import Expansion
from kdbench.grid.grid import Grid
from kdbench.grid.run import Cell, Run
from kdbench.runs import records

SECONDS = 3.0
"""Time to spend on counting what methods cost; further pairs are told roughly."""

ROUGH = ("~ a method's part taken from another pair; --exact counts it on this one, too",)


@dataclass(frozen=True)
class PlanLine:
    """What a cell would cost.

    Attributes:
        pair, method: of the cell. runs: their number. state: how they stand.
        cost: of one run. hours: of one run.
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
    """A line per cell: runs, state, operations, hours, memory of one; and the sum.

    Args:
        grid, expansion: what to plan. runs: folder of runs.
        tflops: sustained TFLOP/s; None: the networks are timed on this machine.
        exact: count every method on every pair, however long that takes.

    Raises:
        UserError: a folder of images that is to be trained on is not there.
    """
    todo = _missing(expansion.runs, runs)
    check_folders(grid, todo)
    pending = {run.id for run in todo}
    found = records.load(runs, (run.id for run in expansion.runs if run.id not in pending))
    how = states(expansion.runs, found, {})
    process = process_bytes()  # before counting and timing
    speed = Speed(grid.executor.threads)
    hours: dict[str, float] = {}
    costs: dict[str, RunCost] = {}
    estimator = Estimator() if exact else Estimator(SECONDS)
    lines = []
    for pair, cell in rows(expansion):
        line = _line(pair, cell, how, speed, tflops, estimator)
        lines.append(line)
        left = [run.id for run in cell.runs if run.id in pending]
        hours.update(dict.fromkeys(left, line.hours))
        costs.update(dict.fromkeys(left, line.cost))
    n = workers(grid.executor)
    groups = cohorts(todo, most=grid.executor.cohort, workers=n)
    total = sum(hours.values())
    threads = grid.executor.threads
    given = (
        f"at {tflops:.3g} TFLOP/s (--tflops)"
        if tflops
        else f"timed on this machine, {threads} thread{'s' if threads > 1 else ''} a worker"
    )
    largest = max(
        (footprint([costs[run.id] for run in group], process) for group in groups),
        key=lambda it: it.total,
        default=None,
    )
    return "\n".join(
        [
            *_table(lines),
            "",
            f"{grid.name}: {len(expansion.runs):,} runs ({count(how.values())}); "
            f"{len(todo):,} to train in {len(groups):,} cohorts",
            f"{_time(total)} of training, {n} at a time: {_time(total / n)}",
            given,
            *([_largest(largest)] if largest else []),
            "Each run is counted as if alone; the runs of a cohort share their teacher.",
            *ROUGH[: any(line.cost.rough for line in lines)],
        ]
    )


def check_folders(grid: Grid, todo: Iterable[Run]) -> None:
    """Whether the images are there that runs train on: how many decides what a run costs.

    Raises:
        UserError: a folder is missing, one line each.
    """
    roots = dict.fromkeys(Path(one.dataset.root) for one in todo if one.dataset.root)
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
    """The runs without a record; asks the disk only about those that have a folder."""
    try:
        begun = set(os.listdir(runs))  # noqa: PTH208 - names are all that is needed
    except OSError:
        begun = set()
    there = {run.id for run in expanded if run.id in begun}
    left = {run.id for run in missing((run for run in expanded if run.id in there), runs)}
    return [run for run in expanded if run.id not in there or run.id in left]


def _largest(it: Footprint) -> str:
    """One line on the cohort that needs most memory."""
    shared, own = it.process + it.data + it.teacher, it.held + it.working
    return (
        f"largest cohort: {it.total / 2**30:.1f} GB on a CPU "
        f"({shared / 2**30:.1f} torch, data, teacher; {own / 2**30:.1f} learners)"
    )


def _line(
    pair: str,
    cell: Cell,
    how: dict[str, str],
    speed: Speed,
    tflops: float | None,
    estimator: Estimator,
) -> PlanLine:
    if not cell.runs:
        return PlanLine(pair, cell.method, 0, "imported", RunCost(), 0.0)
    cost = estimator(cell.runs[0])
    state = count(how[run.id] for run in cell.runs)
    seconds = cost.flops / (tflops * 1e12) if tflops else speed.seconds_of(cell.runs[0], cost)
    return PlanLine(pair, cell.method, len(cell.runs), state, cost, seconds / 3600)


def _table(lines: Sequence[PlanLine]) -> Iterable[str]:
    """Text of at most 80 columns where names allow it; a pair's name heads its methods."""
    wide = min(28, max((len(line.method) for line in lines), default=0))
    told = max((len(line.state) for line in lines), default=0)
    yield (
        f"  {'method':<{wide}}  {'runs':>4}  {'state':<{told}}  {'TFLOP/run':>9}  "
        f"{'time/run':>8}  {'memory':>8}"
    )
    last = None
    for line in lines:
        if line.pair != last:
            last = line.pair
            yield last
        start = f"  {line.method:<{wide}}  {line.runs:>4}  {line.state:<{told}}"
        if line.cost.problem:
            yield start.rstrip()
            yield f"    {line.cost.problem}"
        elif not line.runs:
            yield start.rstrip()
        else:
            yield (
                f"{start}  {_flops(line.cost.flops):>9}  {_time(line.hours):>8}  "
                f"{line.cost.memory / 2**20:>5,.0f} MB{' ~' if line.cost.rough else ''}"
            )


def _flops(flops: float) -> str:
    """In TFLOP, with three digits that mean something."""
    value = flops / 1e12
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _time(hours: float) -> str:
    """``27.2 h``, ``12.0 min`` or ``3.1 s``."""
    if hours >= 1:
        return f"{hours:,.1f} h" if hours < 1000 else f"{hours:,.0f} h"
    return f"{hours * 60:.1f} min" if hours * 60 >= 1 else f"{hours * 3600:.1f} s"
