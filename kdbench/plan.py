"""``kdbench plan``: what a grid would cost, before anything is trained."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from rich.console import Group
from rich.table import Table
from rich.text import Text

from kdbench import estimate, records, status
from kdbench.expand import Expansion
from kdbench.grid import Grid
from kdbench.jobs import cohorts, missing, workers
from kdbench.records import Record
from kdbench.run import Cell


def render(grid: Grid, expansion: Expansion, runs: Path, tflops: float | None) -> Group:
    """A line per cell: runs, state, operations, hours, memory; and the sum."""
    todo = missing(expansion.runs, runs)
    pending = {run.id for run in todo}
    found = records.load(runs, (run.id for run in expansion.runs if run.id not in pending))
    n = workers(grid.executor)
    speed = tflops * 1e12 if tflops else estimate.machine_flops(grid.executor.threads)
    table = Table("pair", "method", "runs", "state", "TFLOP a run", "hours a run", "memory MB")
    totals = {run.id: 0.0 for run in todo}
    for cell in expansion.cells:
        if not cell.runs:
            continue
        cost = estimate.estimate(cell.runs[0])
        hours = cost.flops / speed / 3600
        for run in cell.runs:
            if run.id in totals:
                totals[run.id] = hours
        told = f"skipped: {cost.incompatible}" if cost.incompatible else _state(cell, found)
        table.add_row(
            Text(f"{cell.teacher} -> {cell.student}"),
            Text(cell.method),
            str(len(cell.runs)),
            Text(told),
            f"{cost.flops / 1e12:,.3g}",
            f"{hours:,.3g}",
            f"{cost.memory / 2**20:,.0f}",
        )
    groups = cohorts(todo, most=grid.executor.cohort, workers=n)
    lines = [
        f"{grid.name}: {len(expansion.runs)} runs, {len(todo)} to train in {len(groups)} cohorts",
        f"{sum(totals.values()):,.3g} hours of training in all, {n} at a time: "
        f"{sum(totals.values()) / n:,.3g} hours (each run counted alone; cohorts share teachers)",
        f"at {speed / 1e12:.3g} TFLOP/s"
        + (" (--tflops)" if tflops else f" (measured here, {grid.executor.threads} thread)"),
    ]
    return Group(table, *(Text(line) for line in lines))


def _state(cell: Cell, found: Mapping[str, Record]) -> str:
    count = Counter(status.state(run, found, {}) for run in cell.runs)
    return ", ".join(f"{count[name]} {name}" for name in status.ORDER if count[name])
