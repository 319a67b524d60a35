"""Several grids in one report: merged if their protocols agree, else side by side."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench.files import sweep, write_atomically
from kdbench.grid.grid import Grid
from kdbench.grid.run import BASELINES
from kdbench.report import results_folder
from kdbench.report.protocol_differences import (
    check_same_data,
    common_rows,
    differing,
    option_differences,
)
from kdbench.report.tables import accuracy
from kdbench.report.tables.table import Table
from kdbench.report.text import spreadsheet
from kdbench.report.text.facts import protocol
from kdbench.report.text.markdown import escape, render
from kdbench.runs.evidence import Evidence, any_history
from kdbench.stats.aggregate import Aggregate, LeaderboardError, aggregate

if TYPE_CHECKING:
    import pandas as pd


def merged(grids: Sequence[Evidence], *, mix: bool = False) -> Evidence | None:
    """Merge grids with the same protocol; None if protocols differ and ``mix`` allows it.

    Raises:
        LeaderboardError: protocols, data or seeds differ, without ``mix``.
    """
    first, *others = grids
    for other in others:
        differences = differing(first, other)
        # Under one label, a table would show two methods.
        differences += option_differences(first, other, common_rows(first, other))
        if first.grid.seeds != other.grid.seeds:
            differences.append(f"seeds {list(first.grid.seeds)} and {list(other.grid.seeds)}")
        if differences and mix:
            return None
        if differences:
            raise LeaderboardError(
                f"{first.grid.source}, {other.grid.source}: different protocols "
                f"({'; '.join(differences)}), which cannot be combined in one table; --mix shows "
                "them side by side, with a warning"
            )
    grid = first.grid.model_copy(
        update={
            "name": name(grids),
            "title": "; ".join(evidence.grid.title for evidence in grids),
            "pairs": tuple(pair for evidence in grids for pair in evidence.grid.pairs),
            "methods": tuple(
                {row.label: row for evidence in grids for row in evidence.grid.methods}.values()
            ),
            "sweep": {
                key: values for evidence in grids for key, values in evidence.grid.sweep.items()
            },
            "teachers": {
                arch: run for evidence in grids for arch, run in evidence.grid.teachers.items()
            },
            "source": " --grid ".join(evidence.grid.source for evidence in grids),
        }
    )
    return Evidence(
        grid,
        tuple(cell for evidence in grids for cell in evidence.cells),
        {key: record for evidence in grids for key, record in evidence.records.items()},
        any_history([evidence.history for evidence in grids]),
        {source: facts for evidence in grids for source, facts in evidence.plugins.items()},
    )


def name(grids: Sequence[Evidence]) -> str:
    """Return the name of the folder in ``results/``."""
    return "-and-".join(evidence.grid.name for evidence in grids)


def write(grids: Sequence[Evidence], results: Path, *, replace: bool = False) -> Path:
    """Write grids with different protocols to ``results/<A>-and-<B>/mixed.{md,csv}``.

    Args:
        grids: the grids.
        results: folder of leaderboards.
        replace: write even if results in the folder are lost.

    Returns:
        Path of the page.

    Raises:
        ResultsError: without ``replace``, results in the folder would be lost; nothing is written.
        DataChanged: runs on one data set were made of different data.
    """
    check_same_data(grids)
    results_folder.check_place(results, name(grids))
    if not replace:
        cells = [cell for evidence in grids for cell in evidence.cells]
        records = {key: record for evidence in grids for key, record in evidence.records.items()}
        results_folder.check_kept(results, name(grids), cells, records)
    table, frame = side_by_side([aggregate(evidence) for evidence in grids])
    target = results / name(grids)
    target.mkdir(parents=True, exist_ok=True)
    sweep(target)
    write_atomically(target / "mixed.csv", spreadsheet.csv(frame, digits=10))
    title = escape("; ".join(evidence.grid.title for evidence in grids))
    write_atomically(target / "mixed.md", f"# {title}\n\n{render(table)}")
    return target / "mixed.md"


def side_by_side(aggregates: Sequence[Aggregate]) -> tuple[Table, "pd.DataFrame"]:
    """Tabulate grids with different protocols, marked by letters, and return the data, too.

    Nothing is set in bold, ranked or subtracted across protocols.
    """
    import pandas as pd

    frames, notes = [], []
    for mark, summary in zip(map(chr, range(ord("a"), ord("z"))), aggregates, strict=False):
        grid = summary.evidence.grid
        frames.append(summary.frame.assign(mark=mark))
        notes.append(f"{mark}: {grid.dataset.title}; {_settings(grid)}.")
    frame = pd.concat(frames, ignore_index=True)
    labelled = frame.assign(
        method=[f"{m} ({k})" for m, k in zip(frame["method"], frame["mark"], strict=True)],
    )
    table = accuracy.accuracy(labelled)
    order = sorted(table.rows["Method"], key=lambda text: text.rsplit(" (", 1)[0] not in BASELINES)
    rows = table.rows.set_index("Method").loc[order].reset_index()
    warning = (
        "Rows with different letters have different protocols: their differences include the "
        "effect of the protocols. Nothing here is ranked, tested or set in bold."
    )
    return replace(table, rows=rows, notes=(warning, *notes, table.notes[0])), frame


def _settings(grid: Grid) -> str:
    p = grid.protocol
    weights = f"gamma {p.gamma:g}, alpha {p.alpha:g}, T {p.temperature:g}"
    return f"{protocol(grid)}; {weights} unless a method says otherwise"
