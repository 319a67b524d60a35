"""A grid's cells and records to ``results/<grid>/``: one page, its CSV and its plot.

The page is a pure function of grid and records: no clock, no machine of its own.
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench import plots, published, tables
from kdbench.claims import claims, facts
from kdbench.errors import UserError
from kdbench.grid import Grid
from kdbench.markdown import escape, render
from kdbench.records import Record, write_atomically
from kdbench.run import Cell
from kdbench.tables import Table
from kdbench.tidy import find, tidy

if TYPE_CHECKING:
    import pandas as pd
    import rich.table


class LeaderboardError(UserError):
    """Records that do not belong into one table, or a reference that is no published table."""


def write(grid: Grid, cells: Sequence[Cell], records: Mapping[str, Record], results: Path) -> Path:
    """Write ``results/<grid>/leaderboard.{md,csv}`` and ``plots/accuracy.{svg,png}``.

    Returns:
        The page.

    Raises:
        LeaderboardError: records of different data; an unknown reference.
        OSError: the folder cannot be written; every file in it is then as before or whole.
    """
    frame = _tidy(grid, cells, records)
    page = markdown(grid, cells, records, frame)
    csv = frame.to_csv(index=False, lineterminator="\n", float_format="%.10g")
    figure = plots.accuracy(grid.title, cells, records)
    target = results / grid.name
    (target / "plots").mkdir(parents=True, exist_ok=True)
    write_atomically(target / "leaderboard.csv", csv)
    write_atomically(target / "plots" / "accuracy.svg", plots.svg(figure))
    write_atomically(target / "plots" / "accuracy.png", plots.png(figure))
    write_atomically(target / "leaderboard.md", page)
    return target / "leaderboard.md"


def terminal(
    grid: Grid, cells: Sequence[Cell], records: Mapping[str, Record]
) -> "rich.table.Table":
    """The main table for ``rich.print``.

    Raises:
        LeaderboardError: as ``write``.
    """
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    frame = _tidy(grid, cells, records)
    table = tables.accuracy(frame, ari_of=_ari_of(grid, cells))
    out = RichTable(title=Text(grid.title), box=box.SIMPLE_HEAD)
    columns = [str(name) for name in table.rows.columns]
    for i, name in enumerate(columns):
        out.add_column(Text(name), justify="left" if i == 0 else "right")
    for i, row in enumerate(table.rows.itertuples(index=False)):
        marked = zip(columns, row, strict=True)
        out.add_row(
            *(Text(str(text), "bold" if (i, name) in table.bold else "") for name, text in marked)
        )
    out.caption = Text("Bold: the best, and all not distinguishable from it. (k/n): k of n seeds.")
    return out


def markdown(
    grid: Grid, cells: Sequence[Cell], records: Mapping[str, Record], frame: "pd.DataFrame"
) -> str:
    """The page.

    Args:
        frame: of ``tidy``.
    """
    parts = [
        f"# {escape(grid.title)}\n",
        _commands(grid),
        facts(grid, cells, records, check_data(grid, cells, records)),
        claims(grid, cells, records, frame),
        *(render(table) for table in _main_tables(grid, cells, frame)),
        _unfinished(frame),
        "## Every seed\n\n![Accuracy of every seed, a panel per pair](plots/accuracy.svg)\n",
        *(render(table) for table in _further_tables(grid, cells, frame)),
        "All numbers of this page, and the ids of every cell's runs, are in "
        "[leaderboard.csv](leaderboard.csv); `kdbench show ID` prints a run and the command that "
        "repeats it.\n",
    ]
    return "\n".join(part for part in parts if part)


def check_data(grid: Grid, cells: Iterable[Cell], records: Mapping[str, Record]) -> str | None:
    """The digest of the data that all records used; None without records.

    Raises:
        LeaderboardError: they used different data.
    """
    same_teacher_data = grid.teacher.dataset in (None, grid.dataset)
    runs: dict[str, dict[str, None]] = {}
    for cell in cells:
        if cell.method == "teacher" and not same_teacher_data:
            continue
        for run in cell.runs:
            record = records.get(run.id)
            if record and record.result:
                runs.setdefault(record.result.data, {})[run.id] = None
    if len(runs) > 1:
        *few, most = sorted(runs.items(), key=lambda item: (len(item[1]), item[0]))
        told = "; ".join(
            f"{', '.join(list(ids)[:5])}{', ...' if len(ids) > 5 else ''} "
            f"{'has' if len(ids) == 1 else 'have'} {digest[:12]}"
            for digest, ids in few
        )
        raise LeaderboardError(
            f"{grid.source}: its runs used different data and do not belong into one table: "
            f"{told}; the other {len(most[1])} (e.g. {next(iter(most[1]))}) {most[0][:12]}"
        )
    return next(iter(runs), None)


def _tidy(grid: Grid, cells: Sequence[Cell], records: Mapping[str, Record]) -> "pd.DataFrame":
    check_data(grid, cells, records)
    try:
        return tidy(grid, cells, records)
    except ValueError as error:
        raise LeaderboardError(f"{grid.source}: {error}") from error


def _ari_of(grid: Grid, cells: Sequence[Cell]) -> str | None:
    return find(cells, grid.report.ari_of) if grid.report.ari_of else None


def _commands(grid: Grid) -> str:
    source = shlex.quote(" ".join(grid.source.split()))
    return (
        "```sh\n"
        f"kdbench report --grid {source}   # writes this page again from the records\n"
        f"kdbench run --grid {source}      # trains what is missing\n"
        "```\n"
    )


# --- tables ---


def _main_tables(grid: Grid, cells: Sequence[Cell], frame: "pd.DataFrame") -> list[Table]:
    baseline, reference = find(cells, grid.report.baseline), _ari_of(grid, cells)
    out = [tables.accuracy(frame, ari_of=reference)]
    if baseline and frame["diff_n"].notna().any():
        out.append(tables.differences(frame, baseline))
    return out


def _further_tables(grid: Grid, cells: Sequence[Cell], frame: "pd.DataFrame") -> list[Table]:
    baseline, reference = find(cells, grid.report.baseline), _ari_of(grid, cells)
    out = []
    if reference and frame["ari_unreliable"].notna().any():
        out.append(tables.improvements(frame, reference))
    if grid.report.reference:
        out.append(_published(grid, frame))
    if frame["seconds"].notna().any():
        out.append(tables.costs(frame, baseline))
    out += [tables.best_epoch(frame), tables.objectives(cells)]
    return out


def _published(grid: Grid, frame: "pd.DataFrame") -> Table:
    reference = str(grid.report.reference)
    table = tables.published_figures(frame, reference)
    notes = [
        f"Published on {', '.join(published.datasets(reference))}, here {grid.dataset.title} under "
        f"{grid.protocol.name}. Figures of other data are left out; whether the protocols agree is "
        "for the reader to judge: a paper may report the best epoch, or use other teachers.",
    ]
    return Table(table.title, table.rows, table.bold, (*notes, *table.notes))


def _unfinished(frame: "pd.DataFrame") -> str:
    """Why cells are not whole."""
    lines = [f"- {escape(line)}" for line in tables.reasons(frame)]
    missing = int(frame["missing"].sum())
    if missing:
        lines.append(f"- {missing} of the runs in this table have no record yet.")
    return "\n".join(["## What is not there", "", *lines]) + "\n" if lines else ""
