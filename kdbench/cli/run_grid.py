"""``kdbench run``: start whoever trains, show what happens, write the leaderboard."""

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import click
from rich.console import Console

from kdbench.cli import live_view
from kdbench.cli.options import display
from kdbench.errors import UserError
from kdbench.execution import local as runner
from kdbench.execution import work
from kdbench.execution.events import Event
from kdbench.grid.expand import Expansion
from kdbench.grid.grid import Executor, Grid
from kdbench.grid.run import Run
from kdbench.runs import records
from kdbench.runs.records import Record


def train(
    grid: Grid, expansion: Expansion, runs: Path, results: Path, data: Path, executor: Executor
) -> None:
    """Train what is missing, and write the leaderboard; ends the process if that is cut short."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    todo = work.missing(expansion.runs, runs)
    there = len(expansion.runs) - len(todo)
    click.echo(f"{grid.name}: {len(expansion.runs)} runs, {there} there, {len(todo)} to train")
    events = _events(grid, expansion, runs, data, executor)
    try:
        live_view.show(events, todo, Console())
    except KeyboardInterrupt:
        _interrupted(events, expansion, runs, executor)
    from kdbench.report import leaderboard
    from kdbench.runs.evidence import gather
    from kdbench.stats.aggregate import aggregate

    evidence = gather(grid, expansion.cells, runs)
    whole = aggregate(evidence)
    page = leaderboard.write(evidence, results, whole)
    display(leaderboard.terminal(whole))
    click.echo(f"{page}")
    found = evidence.records
    bad = [one for one in expansion.runs if one.id in found and found[one.id].status == "failed"]
    if bad:
        click.echo(f"{len(bad)} runs failed: kdbench status --grid {grid.source}", err=True)
        sys.exit(1)


def submit(grid: Grid, expansion: Expansion, runs: Path, data: Path, executor: Executor) -> None:
    """Submit what is missing to Slurm, and return.

    Raises:
        UserError: the grid does not run on Slurm.
    """
    if executor.kind != "slurm":
        raise UserError("--detach: only jobs on Slurm go on by themselves: --executor slurm")
    from kdbench.execution.slurm.runner import SlurmRunner

    work.check_writable(runs)
    cluster = SlurmRunner(expansion.runs, grid.name, runs, data, executor)
    for event in cluster.submit_all():
        if event.line:
            click.echo(event.line)
    board = cluster.board
    click.echo(
        f"{len(board.claims)} runs are with Slurm, {len(board.pending)} have no record yet\n"
        f"kdbench status --grid {grid.source}           # how they stand\n"
        f"kdbench run --grid {grid.source} --executor slurm    # watch, submit again what is lost"
    )


def _events(
    grid: Grid, expansion: Expansion, runs: Path, data: Path, executor: Executor
) -> Iterator[Event]:
    if executor.kind != "slurm":
        return runner.run_all(expansion.runs, runs, data, executor)
    from kdbench.execution.slurm.runner import SlurmRunner

    work.check_writable(runs)
    return SlurmRunner(expansion.runs, grid.name, runs, data, executor).events()


def _interrupted(
    events: Iterator[Event], expansion: Expansion, runs: Path, executor: Executor
) -> None:
    """Ctrl-C: end local workers at their step's end, leave jobs alone."""
    local = executor.kind != "slurm"
    if local:
        click.echo("stopping at the end of the step ...", err=True)
    events.close()  # type: ignore[attr-defined]
    left = len(work.missing(expansion.runs, runs))
    how = "stopped" if local else "jobs on Slurm go on by themselves"
    click.echo(f"{how}; {left} runs left; the same command goes on", err=True)
    sys.exit(130)


def run_cell(grid: Grid, runs: Sequence[Run], folder: Path, data: Path) -> Record:
    """Train what is missing of a cell's runs, in this process; the asked run's record.

    Raises:
        UserError: the asked run could not be trained.
    """
    todo = work.missing(runs, folder)
    executor = grid.executor.model_copy(update={"kind": "debug"})
    with closing(runner.run_all(runs, folder, data, executor)) as events:  # type: ignore[type-var]
        live_view.show(events, todo, Console())
    asked = runs[-1]
    record = records.read(folder, asked.id)
    if record is None:
        raise UserError(f"{asked.title}, {asked.method}: not trained; its teacher has failed")
    return record
