"""The ``kdbench`` command: parse, call one function, print.

Everything slow is imported inside the command that needs it, so that ``--help`` answers at once.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kdbench import __version__
from kdbench.cli_analyse import analyse
from kdbench.cli_report import compare, report, verify
from kdbench.cli_transfer import transfer
from kdbench.console import display
from kdbench.flags import Commands, Group, folders, of_data, of_grid

if TYPE_CHECKING:
    from kdbench.expand import Expansion
    from kdbench.grid import Grid


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Which knowledge-distillation method really is better, and by how much."""


for command in (report, compare, verify):
    main.add_command(command)


def _expanded(
    path: Path, overrides: tuple[str, ...], teachers_in: Path | None = None
) -> "tuple[Grid, Expansion]":
    """A grid and its runs; with ``teachers_in``, imported teachers must lie there and fit."""
    from kdbench.expand import expand
    from kdbench.gridfile import load
    from kdbench.trained import check_teachers

    grid = load(path, overrides)
    if teachers_in is not None:
        check_teachers(grid, teachers_in)
    return grid, expand(grid)


@main.command()
@of_grid
@folders
@click.option(
    "--tflops",
    type=click.FloatRange(0, min_open=True),
    help="Sustained TFLOP/s of the device to plan for.",
)
@click.option("--exact", is_flag=True, help="Count every method on every pair: may take minutes.")
def plan(
    path: Path,
    overrides: tuple[str, ...],
    runs: Path,
    results: Path,
    tflops: float | None,
    exact: bool,
) -> None:
    """What a grid would train: runs, state, operations, hours, memory. Starts nothing."""
    from kdbench.plan import render

    grid, expansion = _expanded(path, overrides, runs)
    display(render(grid, expansion, runs, tflops, exact=exact))


@main.command()
@of_grid
@folders
@of_data
@click.option(
    "--executor",
    type=click.Choice(["auto", "local", "debug", "slurm"]),
    help="Replaces the grid's.",
)
@click.option("--workers", type=click.IntRange(1), help="Processes at once, on this machine.")
@click.option("--detach", is_flag=True, help="Submit to Slurm, and return at once.")
@click.option("--dry-run", is_flag=True, help="Say what would be trained, and stop.")
def run(
    path: Path,
    overrides: tuple[str, ...],
    runs: Path,
    results: Path,
    data: Path,
    executor: str | None,
    workers: int | None,
    detach: bool,
    dry_run: bool,
) -> None:
    """Train what is missing, teachers first, then write the leaderboard.

    Ctrl-C loses nothing; the same command goes on. Jobs on Slurm go on by themselves.
    """
    grid, expansion = _expanded(path, overrides, runs)
    changes = {"kind": executor, "workers": workers}
    chosen = grid.executor.model_copy(update={k: v for k, v in changes.items() if v is not None})
    if dry_run:
        from kdbench.jobs import missing

        for one in missing(expansion.runs, runs):
            click.echo(f"{one.id}  {one.title}, {one.method}")
        return
    from kdbench.launch import submit, train

    if detach:
        submit(grid, expansion, runs, data, chosen)
    else:
        train(grid, expansion, runs, results, data, chosen)


@main.command()
@of_grid
@folders
def cancel(path: Path, overrides: tuple[str, ...], runs: Path, results: Path) -> None:
    """Cancel a grid's jobs on Slurm. Checkpoints stay; ``kdbench run`` goes on from them."""
    from kdbench.slurm.runner import cancel as end

    _, expansion = _expanded(path, overrides)
    jobs = end(expansion.runs, runs)
    click.echo(f"{len(jobs)} jobs cancelled" if jobs else "no jobs of this grid")


@main.command()
@of_grid
@folders
@click.option("--watch", is_flag=True, help="Keep showing, until all has ended.")
def status(path: Path, overrides: tuple[str, ...], runs: Path, results: Path, watch: bool) -> None:
    """One line per cell: done, running, pending, failed, skipped."""
    from kdbench.status import render, watching

    grid, expansion = _expanded(path, overrides)
    if watch:
        watching(grid, expansion, runs)
    else:
        display(render(grid, expansion, runs))


@main.command()
@of_grid
@folders
@click.option("--failed", is_flag=True, help="Only what failed.")
@click.option("--diverged", is_flag=True, help="Only what diverged.")
def retry(
    path: Path, overrides: tuple[str, ...], runs: Path, results: Path, failed: bool, diverged: bool
) -> None:
    """Make what ended badly missing again; ``kdbench run`` then trains it.

    The old record stays beside it as record.previous.json.
    """
    from kdbench.status import forget

    _, expansion = _expanded(path, overrides)
    wanted = {name for name, on in (("failed", failed), ("diverged", diverged)) if on}
    for one in forget(expansion, runs, wanted or {"failed", "diverged"}):
        click.echo(f"{one.id}  {one.title}, {one.method}")


@main.command()
@of_grid
@folders
def select(path: Path, overrides: tuple[str, ...], runs: Path, results: Path) -> None:
    """Choose a swept value on held-out training images: dataset {validation: ...}, sweep: ..."""
    from kdbench import records, selection

    grid, expansion = _expanded(path, overrides)
    found = records.load(runs, (one.id for one in expansion.runs))
    display(selection.render(grid, expansion.cells, found))


@main.command()
@click.argument("run_id", metavar="RUN")
@folders
def show(run_id: str, runs: Path, results: Path) -> None:
    """One run: config, curve, versions, and the command that repeats it."""
    from kdbench.status import one_run

    display(one_run(runs, run_id))


@main.command()
@click.option("--method", default=None, help="Method, NAME+NAME or a .py file; none: no teacher.")
@click.option("--teacher", default=None, help="Architecture of the teacher.")
@click.option("--student", required=True, help="Architecture that is trained.")
@click.option("--dataset", required=True, help="Name, or {name: ..., key: value}.")
@click.option("--protocol", default="semckd", show_default=True, help="Preset, or {preset: ...}.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="Of the method.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Of the grid.")
@folders
@of_data
def train(
    method: str | None,
    teacher: str | None,
    student: str,
    dataset: str,
    protocol: str,
    seed: int,
    options: tuple[str, ...],
    overrides: tuple[str, ...],
    runs: Path,
    results: Path,
    data: Path,
) -> None:
    """One cell, one seed: what a table's cell is made of. Teacher first, if need be."""
    from kdbench.cell import Flags, one_cell
    from kdbench.launch import run_cell
    from kdbench.live import outcome
    from kdbench.trained import check_teachers

    flags = Flags(student, dataset, protocol, method, teacher, seed, options, overrides)
    grid, needed = one_cell(flags)
    check_teachers(grid, runs)
    record = run_cell(grid, needed, runs, data)
    display(f"{needed[-1].id}  {outcome(needed[-1], record)}")
    if record.status == "failed":
        sys.exit(1)


@main.command()
@click.option("--pair", metavar="'TEACHER -> STUDENT'", help="Count parameters and MACs on it.")
def methods(pair: str | None) -> None:
    """What methods there are, with their papers and hyper-parameters."""
    from kdbench.catalogue import methods as table

    display(table(pair))


@main.command()
def models() -> None:
    """What architectures there are, with parameters and MACs."""
    from kdbench.catalogue import models as table

    display(table())


@main.command()
@of_data
def datasets(data: Path) -> None:
    """What data sets there are, and where those that are missing belong."""
    from kdbench.catalogue import datasets as table

    display(table(data))


@main.command()
@click.argument("method", metavar="METHOD_OR_FILE")
def check(method: str) -> None:
    """The contract checks, on anybody's method."""
    from kdbench import checks

    results = checks.run(method)
    for result in results:
        mark = "ok  " if result.ok else "FAIL"
        click.echo(f"{mark} {result.name}{'' if result.ok else ': ' + result.message}")
    if not all(result.ok for result in results):
        sys.exit(1)


@main.group(cls=Group)
def teacher() -> None:
    """Teachers that kdbench did not train."""


@teacher.command("import")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--arch", help="Architecture; the folder's name tells, in the published sets.")
@click.option("--dataset", default="cifar100", show_default=True)
@folders
@of_data
def import_(
    checkpoint: Path, arch: str | None, dataset: str, runs: Path, results: Path, data: Path
) -> None:
    """Adopt a published checkpoint, verified by the accuracy it reaches here."""
    from kdbench.adopt import adopt

    adopted = adopt(checkpoint, arch, dataset, runs, data)
    click.echo(f"{adopted.arch}: {adopted.acc:.2f} % on {adopted.dataset}")
    click.echo(f"in a grid:\n  teachers: {{{adopted.arch}: {adopted.id}}}")


main.add_command(analyse)
main.add_command(transfer)


@main.command()
@folders
@of_data
def doctor(runs: Path, results: Path, data: Path) -> None:
    """Machine, devices, data, versions: what is there and what to do about what is not."""
    from kdbench.catalogue import doctor as table

    display(table(runs, data))
