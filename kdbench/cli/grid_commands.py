"""``kdbench plan``, ``run`` and the other commands about a whole grid, from its file."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kdbench.cli.options import (
    combined,
    data_option,
    display,
    folder_options,
    grid_option,
    set_option,
)

if TYPE_CHECKING:
    from kdbench.grid.expand import Expansion
    from kdbench.grid.grid import Grid


@dataclass(frozen=True)
class GridRequest:
    """A grid, as it was asked for.

    Attributes:
        path: of its file. overrides: of its values. runs, results: folder_options.
    """

    path: Path
    overrides: tuple[str, ...]
    runs: Path
    results: Path

    def expanded(self, *, teachers: bool = False) -> "tuple[Grid, Expansion]":
        """The grid and its runs.

        Args:
            teachers: imported teachers must lie in the folder of runs, and fit.

        Raises:
            UserError: what is wrong with the grid.
        """
        from kdbench.grid.expand import expand
        from kdbench.grid.parsing import load
        from kdbench.runs.trained_teachers import check_teachers

        grid = load(self.path, self.overrides)
        if teachers:
            check_teachers(grid, self.runs)
        return grid, expand(grid)


grid_options = combined(
    grid_option(required=True, help="Grid file, e.g. experiments/demo.yaml."),
    set_option(),
    folder_options,
)
"""--grid, --set, --runs and --results, of every command about a grid."""


@click.command()
@grid_options
@click.option(
    "--tflops",
    type=click.FloatRange(0, min_open=True),
    help="Sustained TFLOP/s of the device to plan for.",
)
@click.option("--exact", is_flag=True, help="Count every method on every pair: may take minutes.")
def plan(tflops: float | None, exact: bool, **flags: Any) -> None:
    """What a grid would train: runs, state, operations, hours, memory. Starts nothing."""
    from kdbench.cli.plan import render

    request = GridRequest(**flags)
    grid, expansion = request.expanded(teachers=True)
    display(render(grid, expansion, request.runs, tflops, exact=exact))


@click.command()
@grid_options
@data_option
@click.option(
    "--executor",
    type=click.Choice(["auto", "local", "debug", "slurm"]),
    help="Replaces the grid's.",
)
@click.option("--workers", type=click.IntRange(1), help="Processes at once, on this machine.")
@click.option("--detach", is_flag=True, help="Submit to Slurm, and return at once.")
@click.option("--dry-run", is_flag=True, help="Say what would be trained, and stop.")
def run(
    data: Path,
    executor: str | None,
    workers: int | None,
    detach: bool,
    dry_run: bool,
    **flags: Any,
) -> None:
    """Train what is missing, teachers first, then write the leaderboard.

    Ctrl-C loses nothing; the same command goes on. Jobs on Slurm go on by themselves.
    """
    request = GridRequest(**flags)
    runs = request.runs
    grid, expansion = request.expanded(teachers=True)
    changes = {"kind": executor, "workers": workers}
    chosen = grid.executor.model_copy(update={k: v for k, v in changes.items() if v is not None})
    if dry_run:
        from kdbench.execution.work import missing

        for one in missing(expansion.runs, runs):
            click.echo(f"{one.id}  {one.title}, {one.method}")
        return
    from kdbench.cli.run_grid import submit, train

    if detach:
        submit(grid, expansion, runs, data, chosen)
    else:
        train(grid, expansion, runs, request.results, data, chosen)


@click.command()
@grid_options
def cancel(**flags: Any) -> None:
    """Cancel a grid's jobs on Slurm. Checkpoints stay; ``kdbench run`` goes on from them."""
    from kdbench.execution.slurm.runner import cancel as end

    request = GridRequest(**flags)
    _, expansion = request.expanded()
    jobs = end(expansion.runs, request.runs)
    click.echo(f"{len(jobs)} jobs cancelled" if jobs else "no jobs of this grid")


@click.command()
@grid_options
@click.option("--watch", is_flag=True, help="Keep showing, until all has ended.")
def status(watch: bool, **flags: Any) -> None:
    """One line per cell: done, running, pending, failed, skipped."""
    from kdbench.cli.status import render, watching

    request = GridRequest(**flags)
    grid, expansion = request.expanded()
    if watch:
        watching(grid, expansion, request.runs)
    else:
        display(render(grid, expansion, request.runs))


@click.command()
@grid_options
@click.option("--failed", is_flag=True, help="Only what failed.")
@click.option("--diverged", is_flag=True, help="Only what diverged.")
def retry(failed: bool, diverged: bool, **flags: Any) -> None:
    """Make what ended badly missing again; ``kdbench run`` then trains it.

    The old record stays beside it as record.previous.json.
    """
    from kdbench.execution.retry import forget

    request = GridRequest(**flags)
    _, expansion = request.expanded()
    wanted = {name for name, on in (("failed", failed), ("diverged", diverged)) if on}
    for one in forget(expansion, request.runs, wanted or {"failed", "diverged"}):
        click.echo(f"{one.id}  {one.title}, {one.method}")


@click.command()
@grid_options
def select(**flags: Any) -> None:
    """Choose a swept value on held-out training images: dataset {validation: ...}, sweep: ..."""
    from kdbench.report import selection
    from kdbench.runs import records

    request = GridRequest(**flags)
    grid, expansion = request.expanded()
    found = records.load(request.runs, (one.id for one in expansion.runs))
    display(selection.render(grid, expansion.cells, found))
