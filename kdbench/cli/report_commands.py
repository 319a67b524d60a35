"""``kdbench report``, ``compare`` and ``verify``: what was trained, in tables and in sentences."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kdbench.cli.options import PATH, combined, display, folder_options, grid_option, set_option

if TYPE_CHECKING:
    from kdbench.runs.evidence import Evidence


@dataclass(frozen=True)
class ReportRequest:
    """Where the evidence comes from, and where it goes.

    Attributes:
        paths: of grids. overrides: of their values. archives: of records.
        mix: different protocols may stand beside each other.
        runs, results: folders.
    """

    paths: tuple[Path, ...]
    overrides: tuple[str, ...]
    archives: tuple[Path, ...]
    mix: bool
    runs: Path
    results: Path

    def evidence(self) -> "list[Evidence]":
        """The evidence of each grid, from the folder of runs or from archives.

        With archives and no grid, the grids are those that the archives hold.
        """
        from kdbench.errors import UserError
        from kdbench.grid.expand import expand
        from kdbench.grid.parsing import load
        from kdbench.runs import archive
        from kdbench.runs.evidence import Evidence, any_history, gather

        held = [archive.load(path) for path in self.archives]
        if not self.paths and not held:
            raise UserError("--grid or --from: one of them is needed")
        if not self.paths:
            if self.overrides:
                raise UserError("--set: replaces a grid's value, and there is no --grid")
            return held
        records = {key: record for one in held for key, record in one.records.items()}
        history = any_history([one.history for one in held])
        out = []
        for path in self.paths:
            grid = load(path, self.overrides)
            cells = expand(grid).cells
            out.append(
                Evidence(grid, cells, records, history) if held else gather(grid, cells, self.runs)
            )
        return out


report_options = combined(
    grid_option(
        "paths", multiple=True, help="Grid file, e.g. experiments/demo.yaml; may be given again."
    ),
    set_option(),
    click.option(
        "--from",
        "archives",
        multiple=True,
        type=PATH,
        help="Archive of records, e.g. results/table1-demo/records.parquet.",
    ),
    click.option(
        "--mix", is_flag=True, help="Put different protocols beside each other, marked as such."
    ),
    folder_options,
)
"""--grid, --set, --from, --mix, --runs, --results."""


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


@contextmanager
def unthreaded() -> Iterator[None]:
    """No threads for matrices, unless they are asked for: starting them takes longer than all sums.

    OpenBLAS, which numpy and scipy bring each, looks at this when it is loaded.
    """
    name = "OPENBLAS_NUM_THREADS"
    asked = name in os.environ
    os.environ.setdefault(name, "1")
    try:
        yield
    finally:
        if not asked:
            os.environ.pop(name, None)


@click.command()
@report_options
@uncollected()
@unthreaded()
def report(**flags: Any) -> None:
    """Records to results/<grid>/, without training."""
    from kdbench.report.plots import in_background

    request = ReportRequest(**flags)
    found = request.evidence()
    one = found[0]
    if len(found) > 1:
        from kdbench.report import several_grids

        merged = several_grids.merged(found, mix=request.mix)
        if merged is None:
            click.echo(f"{several_grids.write(found, request.results)}")
            return
        one = merged
    with in_background.beside(one) as draw:
        # Not before: numpy's threads, too, would be in the way of another process.
        from kdbench.report import leaderboard
        from kdbench.stats.aggregate import aggregate

        whole = aggregate(one, draw.tell)
        page = leaderboard.write(one, request.results, whole, draw)
    display(leaderboard.terminal(whole))
    click.echo(f"{page}")


@click.command()
@click.argument("method", metavar="A")
@click.argument("other", metavar="B")
@report_options
def compare(method: str, other: str, **flags: Any) -> None:
    """Say whether method A is better than B, and what the evidence supports.

    With two grids, A is a row of the first and B of the second. Without a grid, A and B are runs:
    their ids, or their folders.
    """
    from kdbench.errors import UserError
    from kdbench.report import compare as comparing

    request = ReportRequest(**flags)
    runs, names = request.runs, (method, other)
    given = request.paths or request.archives
    if not given and all(comparing.is_run(runs, name) for name in names):
        lines = comparing.two_runs(runs, method, other, mix=request.mix)
    else:
        found = request.evidence()
        if len(found) > 2:
            raise UserError("compare: at most two grids, one for A and one for B")
        second = found[1] if len(found) == 2 else None
        lines = comparing.lines(comparing.methods(method, other, found[0], second, mix=request.mix))
    for line in lines:
        click.echo(line)


@click.command()
@folder_options
def verify(runs: Path, results: Path) -> None:
    """Make every leaderboard again from its records.parquet, and compare with what lies there."""
    from kdbench.report import verify as verifying

    checked = verifying.folders(results)
    differing = [line for folder in checked for line in verifying.differing(folder)]
    differing += verifying.overview(results) if checked else []
    for line in differing:
        click.echo(line)
    what = ", ".join(folder.name for folder in checked) or "nothing: no records.parquet is there"
    click.echo(f"{results}: checked {what}; {len(differing)} files differ")
    if differing:
        sys.exit(1)
