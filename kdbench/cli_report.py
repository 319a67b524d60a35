"""``kdbench report``, ``compare`` and ``verify``: what was trained, in tables and in sentences."""

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kdbench.flags import folders

if TYPE_CHECKING:
    from kdbench.evidence import Evidence

Function = Callable[..., Any]


def of_evidence(function: Function) -> Function:
    """--grid, --set, --from, --mix: where the evidence comes from."""
    for option in (
        click.option(
            "--mix", is_flag=True, help="Put different protocols beside each other, marked as such."
        ),
        click.option(
            "--from",
            "archives",
            multiple=True,
            type=click.Path(path_type=Path),
            help="Archive of records, e.g. results/table1-demo/records.parquet.",
        ),
        click.option(
            "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Replace a grid's value."
        ),
        click.option(
            "--grid",
            "paths",
            multiple=True,
            type=click.Path(path_type=Path),
            help="Grid file, e.g. experiments/demo.yaml; may be given again.",
        ),
    ):
        function = option(function)
    return function


def evidence(
    paths: tuple[Path, ...], overrides: tuple[str, ...], archives: tuple[Path, ...], runs: Path
) -> "list[Evidence]":
    """The evidence of each grid, from the folder of runs or from archives.

    With archives and no grid, the grids are those that the archives hold.
    """
    from kdbench import archive
    from kdbench.errors import UserError
    from kdbench.evidence import Evidence, gather
    from kdbench.expand import expand
    from kdbench.gridfile import load

    held = [archive.load(path) for path in archives]
    if not paths and not held:
        raise UserError("--grid or --from: one of them is needed")
    if not paths:
        if overrides:
            raise UserError("--set: replaces a grid's value, and there is no --grid")
        return held
    out = []
    for path in paths:
        grid = load(path, overrides)
        cells = expand(grid).cells
        if not held:
            out.append(gather(grid, cells, runs))
            continue
        records = {key: record for one in held for key, record in one.records.items()}
        curves = [one.history for one in held]

        def history(run_id: str, curves: Any = curves) -> Any:
            return next((curve for one in curves if (curve := one(run_id))), [])

        out.append(Evidence(grid, cells, records, history))
    return out


@contextmanager
def uncollected() -> Iterator[None]:
    """No collection of cycles: a report keeps what it builds, and each pass looks at all of it."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@click.command()
@of_evidence
@folders
@uncollected()
def report(
    paths: tuple[Path, ...],
    overrides: tuple[str, ...],
    archives: tuple[Path, ...],
    mix: bool,
    runs: Path,
    results: Path,
) -> None:
    """Records to results/<grid>/, without training."""
    from rich.console import Console

    from kdbench import leaderboard, mixed
    from kdbench.aggregate import aggregate

    found = evidence(paths, overrides, archives, runs)
    one = found[0] if len(found) == 1 else mixed.merged(found, mix=mix)
    if one is None:
        click.echo(f"{mixed.write(found, results)}")
        return
    whole = aggregate(one)
    page = leaderboard.write(one, results, whole)
    Console().print(leaderboard.terminal(whole), highlight=False, markup=False)
    click.echo(f"{page}")


@click.command()
@click.argument("method", metavar="A")
@click.argument("other", metavar="B")
@of_evidence
@folders
def compare(
    method: str,
    other: str,
    paths: tuple[Path, ...],
    overrides: tuple[str, ...],
    archives: tuple[Path, ...],
    mix: bool,
    runs: Path,
    results: Path,
) -> None:
    """Say whether method A is better than B, and what the evidence supports.

    With two grids, A is a row of the first and B of the second. Without a grid, A and B are runs:
    their ids, or their folders.
    """
    from kdbench import compare as comparing
    from kdbench.errors import UserError

    if not paths and not archives and all(comparing.is_run(runs, name) for name in (method, other)):
        lines = comparing.two_runs(runs, method, other, mix=mix)
    else:
        found = evidence(paths, overrides, archives, runs)
        if len(found) > 2:
            raise UserError("compare: at most two grids, one for A and one for B")
        second = found[1] if len(found) == 2 else None
        lines = comparing.lines(comparing.methods(method, other, found[0], second, mix=mix))
    for line in lines:
        click.echo(line)


@click.command()
@folders
def verify(runs: Path, results: Path) -> None:
    """Make every leaderboard again from its records.parquet, and compare with what lies there."""
    from kdbench import verify as verifying

    checked = verifying.folders(results)
    differing = [line for folder in checked for line in verifying.differing(folder)]
    differing += verifying.overview(results) if checked else []
    for line in differing:
        click.echo(line)
    what = ", ".join(folder.name for folder in checked) or "nothing: no records.parquet is there"
    click.echo(f"{results}: checked {what}; {len(differing)} files differ")
    if differing:
        sys.exit(1)
