"""``kdbench report``, ``compare`` and ``verify``: commands on the results of trained runs."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kdbench.cli.json_output import json_option, print_json
from kdbench.cli.options import (
    PATH,
    combined,
    data_option,
    folder_options,
    grid_option,
    replace_option,
    set_option,
)
from kdbench.cli.printing import display, say

if TYPE_CHECKING:
    from kdbench.runs.evidence import Evidence


@dataclass(frozen=True)
class ReportRequest:
    """Sources of evidence, and the folder of leaderboards.

    Attributes:
        paths: grid files.
        overrides: KEY=VALUE, to replace values of the grids.
        archives: archives of records.
        mix: allow different protocols in one table.
        runs: folder of runs.
        results: folder of leaderboards.
        data: folder of data sets.
    """

    paths: tuple[Path, ...]
    overrides: tuple[str, ...]
    archives: tuple[Path, ...]
    mix: bool
    runs: Path
    results: Path
    data: Path

    def evidence(self) -> "list[Evidence]":
        """Return the evidence of each grid, from the folder of runs or from archives.

        Without grid files, use the grids in the archives.

        Raises:
            UserError: there is no grid and no archive, overrides but no grid, or the images of runs
                have changed.
        """
        from kdbench.cli.image_folders import check_image_folders
        from kdbench.errors import UserError
        from kdbench.grid.expand import expand
        from kdbench.grid.parsing import load
        from kdbench.runs import archive
        from kdbench.runs.evidence import Evidence, any_history, gather

        archived = [archive.load(path) for path in self.archives]
        if not self.paths and not archived:
            raise UserError("--grid or --from is required")
        if not self.paths:
            if self.overrides:
                raise UserError("--set needs --grid")
            return archived
        records = {key: record for part in archived for key, record in part.records.items()}
        history = any_history([part.history for part in archived])
        evidence = []
        for path in self.paths:
            grid = load(path, self.overrides)
            expansion = expand(grid)
            if archived:
                evidence.append(Evidence(grid, expansion.cells, records, history))
                continue
            evidence.append(gather(grid, expansion.cells, self.runs))
            check_image_folders(grid.source, expansion.runs, evidence[-1].records, self.data)
        return evidence


report_options = combined(
    grid_option("paths", multiple=True, help="Grid file, e.g. experiments/demo.yaml; repeatable."),
    set_option(),
    click.option(
        "--from",
        "archives",
        multiple=True,
        type=PATH,
        help="Archive of records, e.g. results/table1-demo/records.parquet; repeatable.",
    ),
    click.option(
        "--mix", is_flag=True, help="Allow different protocols in one table, and mark them."
    ),
    folder_options,
    data_option,
)
"""--grid, --set, --from, --mix, --runs, --results and --data, for commands on evidence."""


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Suspend garbage collection: a report keeps its objects, and each pass would scan them all."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def without_blas_threads() -> Iterator[None]:
    """Set OPENBLAS_NUM_THREADS to 1 if unset: starting threads takes longer than all sums.

    numpy and scipy each include OpenBLAS, which reads this variable when it is loaded.
    """
    name = "OPENBLAS_NUM_THREADS"
    already_set = name in os.environ
    os.environ.setdefault(name, "1")
    try:
        yield
    finally:
        if not already_set:
            os.environ.pop(name, None)


@click.command()
@report_options
@replace_option
@json_option
@without_garbage_collection()
@without_blas_threads()
def report(replace: bool, as_json: bool, **flags: Any) -> None:
    """Write the leaderboard of a grid to results/GRID, without training."""
    from kdbench.report.plots import in_background

    request = ReportRequest(**flags)
    grids = request.evidence()
    evidence = grids[0]
    if len(grids) > 1:
        from kdbench.report import several_grids

        merged = several_grids.merged(grids, mix=request.mix)
        if merged is None:
            page = several_grids.write(grids, request.results, replace=replace)
            if as_json:
                from kdbench.cli.report_json import side_by_side

                print_json("report", side_by_side(grids, page))
            else:
                say(f"{page}")
            return
        evidence = merged
    with in_background.drawing_process(evidence) as draw:
        # Imported only now: a process with numpy's threads could not fork.
        from kdbench.report import leaderboard
        from kdbench.report.text.terminal import Terminal
        from kdbench.stats.aggregate import aggregate

        statistics = aggregate(evidence)
        files = leaderboard.write_files(statistics, request.results, draw, replace=replace)
    if as_json:
        from kdbench.cli.report_json import content

        print_json("report", content(statistics, files))
        return
    display(Terminal(statistics))
    say(f"{leaderboard.page(statistics, request.results)}")


@click.command()
@click.argument("method", metavar="A")
@click.argument("other", metavar="B")
@report_options
@click.option("--pair", metavar="PAIR", help="Compare on one pair only, e.g. 'r8w16 -> r8w3'.")
@json_option
@without_blas_threads()
def compare(method: str, other: str, pair: str | None, as_json: bool, **flags: Any) -> None:
    """Test whether method A is better than B, and print what the evidence supports.

    With two grids, A is a row of the first and B of the second. Without a grid, A and B are runs:
    ids, their first characters, or folders.
    """
    from kdbench.errors import UserError

    request = ReportRequest(**flags)
    if request.paths or request.archives:
        from kdbench.report import compare_sentences
        from kdbench.report.compare import compare_rows

        grids = request.evidence()
        if len(grids) > 2:
            raise UserError("compare: at most two grids, one for A and one for B")
        second = grids[1] if len(grids) == 2 else None
        rows = compare_rows(method, other, grids[0], second, pair=pair, mix=request.mix)
        lines, content = compare_sentences.lines(rows), compare_sentences.as_json(rows)
    else:
        from kdbench.report import compare_runs

        if request.overrides or pair is not None:
            raise UserError(f"{'--set' if request.overrides else '--pair'} needs --grid")
        runs = compare_runs.two_runs(request.runs, method, other, mix=request.mix)
        lines, content = compare_runs.lines(runs), compare_runs.as_json(runs)
    if as_json:
        print_json("compare", content)
    else:
        for line in lines:
            say(line)


@click.command()
@folder_options
def verify(runs: Path, results: Path) -> None:
    """Rebuild every leaderboard from its records.parquet and compare the files."""
    from kdbench.errors import UserError
    from kdbench.report import verify as verifying

    if not results.is_dir():
        raise UserError(f"--results {results}: no such folder")

    checked = verifying.folders(results)
    differing = [line for folder in checked for line in verifying.differing(folder)]
    differing += verifying.overview(results) if checked else []
    for line in differing:
        say(line)
    names = ", ".join(folder.name for folder in checked) or "nothing, no records.parquet found"
    say(f"{results}: checked {names}; {len(differing)} files differ")
    if differing:
        sys.exit(1)
