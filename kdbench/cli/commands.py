"""The ``kdbench`` command: parse, call one function, print.

Everything slow is imported inside the command that needs it, so that ``--help`` answers at once.
"""

import sys
from pathlib import Path

import click

from kdbench import __version__
from kdbench.cli.analyse_commands import analyse
from kdbench.cli.grid_commands import cancel, plan, retry, run, select, status
from kdbench.cli.options import (
    Commands,
    Group,
    data_option,
    display,
    folder_options,
    grid_option,
    set_option,
)
from kdbench.cli.report_commands import compare, report, verify
from kdbench.cli.transfer_commands import transfer


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Which knowledge-distillation method really is better, and by how much."""


for command in (
    *(plan, run, cancel, status, retry, select, report, compare, verify),
    *(analyse, transfer),
):
    main.add_command(command)


@main.command()
@click.argument("run_id", metavar="RUN")
@folder_options
def show(run_id: str, runs: Path, results: Path) -> None:
    """One run: config, curve, versions, and the command that repeats it."""
    from kdbench.cli.show import one_run

    display(one_run(runs, run_id))


@main.command()
@click.option("--method", default=None, help="Method, NAME+NAME or a .py file; none: no teacher.")
@click.option("--teacher", default=None, help="Architecture of the teacher.")
@click.option("--student", required=True, help="Architecture that is trained.")
@click.option("--dataset", required=True, help="Name, or {name: ..., key: value}.")
@click.option("--protocol", default="semckd", show_default=True, help="Preset, or {preset: ...}.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="Of the method.")
@set_option("Of the grid.")
@folder_options
@data_option
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
    from kdbench.cli.live_view import outcome
    from kdbench.cli.run_grid import run_cell
    from kdbench.grid.train_command import TrainFlags, one_cell
    from kdbench.runs.trained_teachers import check_teachers

    flags = TrainFlags(student, dataset, protocol, method, teacher, seed, options, overrides)
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
    from kdbench.cli.catalogue import methods as table

    display(table(pair))


@main.command()
def models() -> None:
    """What architectures there are, with parameters and MACs."""
    from kdbench.cli.catalogue import models as table

    display(table())


@main.command()
@data_option
def datasets(data: Path) -> None:
    """What data sets there are, and where those that are missing belong."""
    from kdbench.cli.catalogue import datasets as table

    display(table(data))


@main.command()
@click.argument("method", metavar="METHOD_OR_FILE")
def check(method: str) -> None:
    """The contract checks, on anybody's method; exit code 1 if one fails."""
    from kdbench.registry import lookup

    lookup.find(method)
    from kdbench.registry import checks  # imports torch

    results = checks.run(method)
    for result in results:
        mark = "ok  " if result.ok else "FAIL"
        click.echo(f"{mark} {result.name}{'' if result.ok else ': ' + result.message}")
    if not all(result.ok for result in results):
        sys.exit(1)


@main.command()
def schema() -> None:
    """A grid file's keys and values as JSON Schema, for editors."""
    import json

    from kdbench.grid.json_schema import schema as built

    click.echo(json.dumps(built(), indent=1))


@main.group(cls=Group)
def teacher() -> None:
    """Teachers that kdbench did not train."""


@teacher.command("import")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--arch", help="Architecture; the folder's name tells, in the published sets.")
@click.option("--dataset", default="cifar100", show_default=True)
@folder_options
@data_option
def import_(
    checkpoint: Path, arch: str | None, dataset: str, runs: Path, results: Path, data: Path
) -> None:
    """Adopt a published checkpoint, verified by the accuracy it reaches here."""
    from kdbench.training.import_teacher import import_checkpoint

    adopted = import_checkpoint(checkpoint, arch, dataset, runs, data)
    click.echo(f"{adopted.arch}: {adopted.acc:.2f} % on {adopted.dataset}")
    click.echo(f"in a grid:\n  teachers: {{{adopted.arch}: {adopted.id}}}")


@main.command()
@folder_options
@data_option
@click.option("--tune", is_flag=True, help="Measure, in about a minute, how to use the cores.")
@grid_option("grid", help="With --tune: train this grid's first pair.")
@set_option()
def doctor(
    runs: Path, results: Path, data: Path, tune: bool, grid: Path | None, overrides: tuple[str, ...]
) -> None:
    """Machine, devices, data, versions: what is there and what to do about what is not."""
    if tune:
        from kdbench.cost import tune as tuning

        subject = tuning.of_grid(grid, overrides) if grid else tuning.Workload()
        click.echo("measuring for about a minute ...", err=True)
        display(tuning.tune(subject))
        return
    if grid or overrides:
        raise click.UsageError("--grid and --set belong to --tune")
    from kdbench.cli.doctor import doctor as table

    display(table(runs, data))
