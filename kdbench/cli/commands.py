"""The ``kdbench`` command: it parses options, calls one function and prints its result.

Commands import slow packages inside their bodies, so ``--help`` is instant.
"""

import sys
from pathlib import Path

import click

from kdbench import __version__
from kdbench.cli.analyse_commands import analyse
from kdbench.cli.grid_commands import cancel, plan, retry, run, select, status
from kdbench.cli.json_output import json_option, print_json
from kdbench.cli.options import (
    Commands,
    Group,
    data_option,
    folder_options,
    grid_option,
    set_option,
)
from kdbench.cli.printing import display, say
from kdbench.cli.report_commands import compare, report, verify
from kdbench.cli.transfer_commands import transfer


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Compare knowledge-distillation methods: which is better, and by how much."""


for command in (
    *(plan, run, cancel, status, retry, select, report, compare, verify),
    *(analyse, transfer),
):
    main.add_command(command)


@main.command()
@click.argument("run_id", metavar="RUN")
@folder_options
@json_option
def show(run_id: str, runs: Path, results: Path, as_json: bool) -> None:
    """Show a run: configuration, training curve, versions, and the command to repeat it."""
    from kdbench.cli.show import describe_run, read

    if as_json:
        from kdbench.cli.show_json import content

        print_json("show", content(read(runs, run_id)))
    else:
        display(describe_run(runs, run_id))


@main.command()
@click.option(
    "--method",
    default=None,
    help="Method, NAME+NAME or a .py file (default: train without a teacher).",
)
@click.option("--teacher", default=None, help="Architecture of the teacher.")
@click.option("--student", required=True, help="Architecture to train.")
@click.option("--dataset", required=True, help="Data set: a name, or {name: ..., key: value}.")
@click.option(
    "--protocol", default="semckd", show_default=True, help="Preset, or {preset: ..., key: value}."
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the run."
)
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help="Set a hyper-parameter of the method; repeatable.",
)
@set_option("Set a value of the grid that the run belongs to; repeatable.")
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
    """Train a single run, after its teacher if that is missing."""
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
@click.option(
    "--pair", metavar="'TEACHER -> STUDENT'", help="Also show parameters and MACs on this pair."
)
def methods(pair: str | None) -> None:
    """List the methods with their papers and hyper-parameters."""
    from kdbench.cli.catalogue import methods as table

    display(table(pair))


@main.command()
def models() -> None:
    """List the architectures with their parameters and MACs."""
    from kdbench.cli.catalogue import models as table

    display(table())


@main.command()
@data_option
def datasets(data: Path) -> None:
    """List the data sets, and where to put the missing ones."""
    from kdbench.cli.catalogue import datasets as table
    from kdbench.cli.catalogue import missing_datasets

    display(table(data))
    say(missing_datasets(data))


@main.command()
@click.argument("method", metavar="METHOD_OR_FILE")
def check(method: str) -> None:
    """Test whether a method works with kdbench; exit with code 1 if a check fails."""
    from kdbench.registry import lookup

    lookup.find(method)
    from kdbench.registry import checks  # imports torch

    results = checks.run(method)
    for result in results:
        mark = "ok  " if result.ok else "FAIL"
        say(f"{mark} {result.name}{'' if result.ok else ': ' + result.message}")
    if not all(result.ok for result in results):
        sys.exit(1)


@main.command()
def schema() -> None:
    """Print the JSON Schema of grid files, for editors."""
    import json

    from kdbench.grid.json_schema import schema as built

    say(json.dumps(built(), indent=1))


@main.group(cls=Group)
def teacher() -> None:
    """Use teachers that kdbench did not train."""


@teacher.command("import")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--arch", help="Architecture (default: from the folder name of a published checkpoint)."
)
@click.option(
    "--dataset", default="cifar100", show_default=True, help="Data set that it was trained on."
)
@folder_options
@data_option
def import_(
    checkpoint: Path, arch: str | None, dataset: str, runs: Path, results: Path, data: Path
) -> None:
    """Import a published checkpoint and measure its accuracy."""
    from kdbench.training.import_teacher import import_checkpoint

    adopted = import_checkpoint(checkpoint, arch, dataset, runs, data)
    say(f"{adopted.arch}: {adopted.acc:.2f} % on {adopted.dataset}")
    if adopted.near_chance:
        say(
            f"kdbench: warning: {adopted.acc:.2f} % is close to chance, "
            f"{100 / adopted.classes:.3g} % for {adopted.classes} classes; check that the "
            "checkpoint was trained on this data set, with the same order of classes and the "
            "same normalisation",
            err=True,
        )
    say(f"in a grid:\n  teachers: {{{adopted.arch}: {adopted.id}}}")


@main.command()
@folder_options
@data_option
@click.option("--tune", is_flag=True, help="Measure how to use cores or GPU (about a minute).")
@grid_option("grid", help="With --tune: measure on this grid's first pair.")
@set_option("With --tune: replace a value of the grid; repeatable.")
def doctor(
    runs: Path, results: Path, data: Path, tune: bool, grid: Path | None, overrides: tuple[str, ...]
) -> None:
    """Check the machine, devices, data and versions, and say how to fix problems."""
    if tune:
        from kdbench.cost import tune as tuning

        workload = tuning.workload_of_grid(grid, overrides) if grid else tuning.Workload()
        say("measuring for about a minute ...", err=True)
        display(tuning.tune(workload))
        return
    if grid or overrides:
        raise click.UsageError("--grid and --set need --tune")
    from kdbench.cli.catalogue import missing_datasets
    from kdbench.cli.doctor import doctor as table

    display(table(runs, data))
    say(missing_datasets(data))
