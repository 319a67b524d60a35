"""``kdbench plan``, ``run`` and the other commands for one grid file."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kdbench.cli.json_output import json_option, print_json
from kdbench.cli.options import (
    combined,
    data_option,
    folder_options,
    grid_option,
    replace_option,
    set_option,
)
from kdbench.cli.printing import display, say

if TYPE_CHECKING:
    from kdbench.grid.expand import Expansion
    from kdbench.grid.grid import Grid


@dataclass(frozen=True)
class GridRequest:
    """A grid file, changes to it, and folders.

    Attributes:
        path: the grid file.
        overrides: KEY=VALUE, to replace values of the grid.
        runs: folder of runs.
        results: folder of leaderboards.
    """

    path: Path
    overrides: tuple[str, ...]
    runs: Path
    results: Path

    def expanded(self, *, teachers: bool = False) -> "tuple[Grid, Expansion]":
        """Load the grid and expand it into runs.

        Args:
            teachers: also check that imported teachers are in the folder of runs and fit the grid.

        Raises:
            UserError: the grid has mistakes.
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
"""--grid, --set, --runs and --results, for commands on one grid."""


@click.command()
@grid_options
@click.option(
    "--tflops",
    type=click.FloatRange(0, min_open=True),
    help="Sustained TFLOP/s of the device (default: time this machine).",
)
@click.option("--exact", is_flag=True, help="Count every method on every pair; may take minutes.")
@json_option
def plan(tflops: float | None, exact: bool, as_json: bool, **flags: Any) -> None:
    """Estimate runs, operations, hours and memory of a grid, without training."""
    from kdbench.cli.plan import estimated

    request = GridRequest(**flags)
    grid, expansion = request.expanded(teachers=True)
    estimate = estimated(grid, expansion, request.runs, tflops, exact=exact)
    if as_json:
        from kdbench.cli.plan_json import content

        print_json("plan", content(estimate))
    else:
        from kdbench.cli.plan_text import text

        display(text(estimate))


@click.command()
@grid_options
@data_option
@click.option(
    "--executor",
    type=click.Choice(["auto", "local", "debug", "slurm"]),
    help="Replace the executor of the grid.",
)
@click.option(
    "--workers", type=click.IntRange(1), help="Number of worker processes on this machine."
)
@click.option("--detach", is_flag=True, help="Submit to Slurm and return at once.")
@click.option("--dry-run", is_flag=True, help="List the missing runs without training.")
@replace_option
def run(
    data: Path,
    executor: str | None,
    workers: int | None,
    detach: bool,
    dry_run: bool,
    replace: bool,
    **flags: Any,
) -> None:
    """Train missing runs, teachers first, then write the leaderboard.

    After Ctrl-C, the same command resumes from checkpoints. Slurm jobs continue meanwhile.
    """
    request = GridRequest(**flags)
    runs = request.runs
    grid, expansion = request.expanded(teachers=True)
    changes = {"kind": executor, "workers": workers}
    chosen = grid.executor.model_copy(update={k: v for k, v in changes.items() if v is not None})
    if dry_run:
        from kdbench.execution.work import missing

        for todo in missing(expansion.runs, runs):
            say(f"{todo.id}  {todo.title}, {todo.method}")
        return
    from kdbench.cli import login_node
    from kdbench.cli.run_grid import submit, train
    from kdbench.report import results_folder

    asked = executor is not None or any(x.startswith("executor") for x in request.overrides)
    login_node.check(chosen, expansion.runs, runs, grid.source, asked=asked)
    # Before training, so that no training ends without a place for its leaderboard.
    results_folder.check_place(request.results, grid.name)
    if not replace:
        results_folder.check_kept(request.results, grid.name, expansion.cells, None)
    if detach:
        submit(grid, expansion, runs, data, chosen)
    else:
        train(grid, expansion, runs, request.results, data, chosen, replace=replace)


@click.command()
@grid_options
def cancel(**flags: Any) -> None:
    """Cancel a grid's Slurm jobs. Checkpoints remain, and ``kdbench run`` resumes from them."""
    from kdbench.execution.slurm.jobs_of_grid import cancel as cancel_jobs

    request = GridRequest(**flags)
    _, expansion = request.expanded()
    jobs = cancel_jobs(expansion.runs, request.runs)
    say(f"{len(jobs)} jobs cancelled" if jobs else "this grid has no jobs")


@click.command()
@grid_options
@click.option("--watch", is_flag=True, help="Refresh until all runs have ended.")
@json_option
def status(watch: bool, as_json: bool, **flags: Any) -> None:
    """Show the state of each cell: done, running, pending, failed, skipped."""
    from kdbench.errors import UserError

    if watch and as_json:
        raise UserError("status: --watch and --json exclude each other")
    from kdbench.cli.status import render, show_live, snapshot

    request = GridRequest(**flags)
    grid, expansion = request.expanded()
    if as_json:
        from kdbench.cli.status_json import content

        print_json("status", content(grid, expansion, snapshot(expansion, request.runs)))
    elif watch:
        show_live(grid, expansion, request.runs)
    else:
        display(render(grid, expansion, request.runs))


@click.command()
@grid_options
@click.option("--failed", is_flag=True, help="Mark failed runs only.")
@click.option("--diverged", is_flag=True, help="Mark diverged runs only.")
def retry(failed: bool, diverged: bool, **flags: Any) -> None:
    """Mark failed or diverged runs for re-training by ``kdbench run``.

    Old records are kept as record.previous.json.
    """
    from kdbench.execution.retry import forget

    request = GridRequest(**flags)
    _, expansion = request.expanded()
    wanted = {name for name, on in (("failed", failed), ("diverged", diverged)) if on}
    wanted = wanted or {"failed", "diverged"}
    runs = forget(expansion, request.runs, wanted)
    for run in runs:
        say(f"{run.id}  {run.title}, {run.method}")
    if not runs:
        say(f"no {' or '.join(sorted(wanted, reverse=True))} runs", err=True)


@click.command()
@grid_options
@data_option
@json_option
def select(data: Path, as_json: bool, **flags: Any) -> None:
    """Choose swept values by their accuracy on held-out training images.

    The grid needs ``dataset: {validation: ...}`` and ``sweep``.
    """
    from kdbench.cli.image_folders import check_image_folders
    from kdbench.report import selection, selection_text
    from kdbench.runs import records

    request = GridRequest(**flags)
    grid, expansion = request.expanded()
    loaded = records.load(request.runs, (run.id for run in expansion.runs))
    check_image_folders(grid.source, expansion.runs, loaded, data)
    chosen = selection.select(grid, expansion.cells, loaded)
    if as_json:
        print_json("select", selection_text.as_json(chosen))
    else:
        display("\n".join(selection_text.lines(chosen)))
