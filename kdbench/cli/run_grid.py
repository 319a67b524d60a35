"""The body of ``kdbench run``: train missing runs, show progress, write the leaderboard."""

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from kdbench.cli import live_view
from kdbench.cli.image_folders import check_image_folders
from kdbench.cli.printing import display, say
from kdbench.cli.safe_console import SafeConsole
from kdbench.errors import UserError
from kdbench.execution import leftovers, work
from kdbench.execution import local as runner
from kdbench.execution.devices import choose_device
from kdbench.execution.events import Event
from kdbench.grid.expand import Expansion
from kdbench.grid.grid import Executor, Grid
from kdbench.grid.run import Run
from kdbench.registry import lookup
from kdbench.registry.lookup import built_in_path
from kdbench.runs import records
from kdbench.runs.records import Record
from kdbench.training.memory import free_memory
from kdbench.wording import counted


def train(
    grid: Grid,
    expansion: Expansion,
    runs: Path,
    results: Path,
    data: Path,
    executor: Executor,
    *,
    replace: bool = False,
) -> None:
    """Train missing runs and write the leaderboard; exit if interrupted or if a run has failed.

    Args:
        grid: the grid.
        expansion: its runs.
        runs: folder of runs.
        results: folder of leaderboards.
        data: folder of data sets.
        executor: in place of the grid's.
        replace: replace the leaderboard even if results in it are lost.
    """

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    leftovers.sweep(expansion.runs, runs)
    todo = work.missing(expansion.runs, runs)
    total = len(expansion.runs)
    recorded = total - len(todo)
    say(f"{grid.name}: {total} runs, {recorded} recorded, {len(todo)} to train")
    if executor.kind != "slurm":
        _import_plugins(todo)
    before = records.load(runs, (run.id for run in expansion.runs))
    check_image_folders(grid.source, expansion.runs, before, data)
    _check_groups(grid, todo, executor)
    events = _events(grid, expansion, runs, data, executor)
    try:
        live_view.show(events, todo, SafeConsole())
    except KeyboardInterrupt:
        _interrupted(events, expansion, runs, executor)
    from kdbench.report import leaderboard
    from kdbench.report.text.terminal import Terminal
    from kdbench.runs.evidence import gather
    from kdbench.stats.aggregate import aggregate

    evidence = gather(grid, expansion.cells, runs)
    statistics = aggregate(evidence)
    page = leaderboard.write(statistics, results, replace=replace)
    display(Terminal(statistics))
    say(f"{page}")
    loaded = [evidence.records[run.id] for run in expansion.runs if run.id in evidence.records]
    failed = sum(record.status == "failed" for record in loaded)
    if failed:
        say(f"{counted(failed, 'run')} failed: kdbench status --grid {grid.source}", err=True)
        sys.exit(1)


def _check_groups(grid: Grid, todo: Sequence[Run], executor: Executor) -> None:
    """Refuse groups of networks that cannot be trained here.

    Raises:
        UserError: a group is impossible or too large.
    """
    described = (lookup.describe(built_in_path(t.where)) for run in todo for t in run.terms)
    if not any(method.brings_peers for method in described):
        return
    from kdbench.cost.groups import check_groups  # imports torch

    # A worker asks its GPU, so that this process needs none.
    here = executor.kind != "slurm" and choose_device(executor.device).type == "cpu"
    check_groups(grid.source, todo, free_memory() if here else None)


def _import_plugins(todo: Sequence[Run]) -> None:
    """Import the plugins of runs before anything is trained.

    Not for Slurm, whose nodes may have packages that this machine lacks.

    Raises:
        RegistryError: a plugin cannot be imported.
    """
    for plugin in sorted({term.where for run in todo for term in run.terms if term.source}):
        lookup.load(plugin)


def submit(grid: Grid, expansion: Expansion, runs: Path, data: Path, executor: Executor) -> None:
    """Submit missing runs to Slurm and return.

    Raises:
        UserError: the grid does not run on Slurm.
    """
    if executor.kind != "slurm":
        raise UserError("--detach needs Slurm: add --executor slurm")
    from kdbench.execution.slurm.runner import SlurmRunner

    cluster = SlurmRunner(expansion.runs, grid.name, runs, data, executor)
    work.check_writable(runs)
    for event in cluster.submit_all():
        if event.line:
            say(event.line)
    board = cluster.board
    say(
        f"{len(board.claims)} runs submitted to Slurm, {len(board.pending)} without a record\n"
        f"kdbench status --grid {grid.source}           # show their state\n"
        f"kdbench run --grid {grid.source} --executor slurm    # watch, resubmit lost runs"
    )


def _events(
    grid: Grid, expansion: Expansion, runs: Path, data: Path, executor: Executor
) -> Iterator[Event]:
    if executor.kind != "slurm":
        return runner.run_all(expansion.runs, runs, data, executor)
    from kdbench.execution.slurm.runner import SlurmRunner

    cluster = SlurmRunner(expansion.runs, grid.name, runs, data, executor)
    work.check_writable(runs)
    return cluster.events()


def _interrupted(
    events: Iterator[Event], expansion: Expansion, runs: Path, executor: Executor
) -> None:
    """Stop local workers after their current step, leave Slurm jobs alone, and exit."""
    local = executor.kind != "slurm"
    if local:
        say("stopping after the current step ...", err=True)
    events.close()  # type: ignore[attr-defined]
    missing = len(work.missing(expansion.runs, runs))
    state = "stopped" if local else _on_slurm(expansion, runs)
    say(f"{state}; {missing} runs left; repeat the command to resume", err=True)
    sys.exit(130)


def _on_slurm(expansion: Expansion, runs: Path) -> str:
    from kdbench.execution.slurm.jobs_of_grid import jobs_known

    if jobs_known(expansion.runs, runs):
        return "jobs on Slurm continue"
    return "stopped, without any job on Slurm"


def run_cell(grid: Grid, runs: Sequence[Run], folder: Path, data: Path) -> Record:
    """Train the missing runs in this process and return the record of the last.

    Raises:
        UserError: the last run could not be trained.
    """
    todo = work.missing(runs, folder)
    executor = grid.executor.model_copy(update={"kind": "debug"})
    with closing(runner.run_all(runs, folder, data, executor)) as events:  # type: ignore[type-var]
        live_view.show(events, todo, SafeConsole())
    last = runs[-1]
    record = records.read(folder, last.id)
    if record is None:
        run = f"{last.title}, {last.method}"
        raise UserError(f"{run}: not trained, because its teacher has no result")
    return record
