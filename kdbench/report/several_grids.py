"""Several grids in one report: as one grid where protocols agree, else side by side, footnoted."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench.files import write_atomically
from kdbench.grid.grid import Grid
from kdbench.grid.run import BASELINES
from kdbench.report.compare import differing
from kdbench.report.tables import accuracy
from kdbench.report.tables.table import Table
from kdbench.report.text.facts import protocol
from kdbench.report.text.markdown import escape, render
from kdbench.runs.evidence import Evidence, any_history
from kdbench.stats.aggregate import Aggregate, LeaderboardError, aggregate

if TYPE_CHECKING:
    import pandas as pd


def merged(grids: Sequence[Evidence], *, mix: bool = False) -> Evidence | None:
    """Several grids of one protocol as one; None where protocols differ and ``mix`` allows it.

    Raises:
        LeaderboardError: protocols, data or seeds differ.
    """
    first, *others = grids
    for other in others:
        told = differing(first, other)
        if first.grid.seeds != other.grid.seeds:
            told.append(f"seeds {list(first.grid.seeds)} and {list(other.grid.seeds)}")
        if told and mix:
            return None
        if told:
            raise LeaderboardError(
                f"{first.grid.source}, {other.grid.source}: different protocols "
                f"({'; '.join(told)}) do not belong into one table; --mix puts them side by side "
                "in a table that says so"
            )
    grid = first.grid.model_copy(
        update={
            "name": name(grids),
            "title": "; ".join(one.grid.title for one in grids),
            "pairs": tuple(pair for one in grids for pair in one.grid.pairs),
            "methods": tuple(
                {row.label: row for one in grids for row in one.grid.methods}.values()
            ),
            "teachers": {arch: run for one in grids for arch, run in one.grid.teachers.items()},
            "source": " --grid ".join(one.grid.source for one in grids),
        }
    )
    return Evidence(
        grid,
        tuple(cell for one in grids for cell in one.cells),
        {key: record for one in grids for key, record in one.records.items()},
        any_history([one.history for one in grids]),
    )


def name(grids: Sequence[Evidence]) -> str:
    """Of the folder in ``results/``."""
    return "-and-".join(one.grid.name for one in grids)


def write(grids: Sequence[Evidence], results: Path) -> Path:
    """Grids of different protocols to ``results/<A>-and-<B>/mixed.{md,csv}``.

    Returns:
        The page.
    """
    wholes = [aggregate(one) for one in grids]
    table, frame = side_by_side(wholes)
    target = results / name(grids)
    target.mkdir(parents=True, exist_ok=True)
    csv = frame.to_csv(index=False, lineterminator="\n", float_format="%.10g")
    write_atomically(target / "mixed.csv", csv)
    title = escape("; ".join(one.grid.title for one in grids))
    write_atomically(target / "mixed.md", f"# {title}\n\n{render(table)}")
    return target / "mixed.md"


def side_by_side(wholes: Sequence[Aggregate]) -> tuple[Table, "pd.DataFrame"]:
    """One table of several protocols, every row marked; and the tidy rows with ``mark``.

    Nothing is set in bold, ranked or subtracted across protocols.
    """
    import pandas as pd

    frames, notes = [], []
    for mark, whole in zip(map(chr, range(ord("a"), ord("z"))), wholes, strict=False):
        frames.append(whole.frame.assign(mark=mark))
        notes.append(f"{mark}: {whole.evidence.grid.dataset.title}; {_told(whole.evidence.grid)}.")
    frame = pd.concat(frames, ignore_index=True)
    labelled = frame.assign(
        method=[f"{m} ({k})" for m, k in zip(frame["method"], frame["mark"], strict=True)],
        top=False,
    )
    shown = accuracy.accuracy(labelled)
    order = sorted(shown.rows["Method"], key=lambda text: text.rsplit(" (", 1)[0] not in BASELINES)
    rows = shown.rows.set_index("Method").loc[order].reset_index()
    warning = (
        "Rows of different letters are of different protocols: their difference is one of methods "
        "and protocols together. Nothing here is ranked, tested or set in bold."
    )
    return replace(shown, rows=rows, notes=(warning, *notes, shown.notes[0])), frame


def _told(grid: Grid) -> str:
    p = grid.protocol
    weights = f"gamma {p.gamma:g}, alpha {p.alpha:g}, T {p.temperature:g}"
    return f"{protocol(grid)}; {weights} unless a method says otherwise"
