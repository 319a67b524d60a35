"""The section of the main table: its columns, filters, files and legend."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kdbench.report.page.drawn_bars import LengthScale
from kdbench.report.page.main_table import Column, TableRow
from kdbench.report.tables import marks
from kdbench.report.text import places_of_methods
from kdbench.runs import archive
from kdbench.stats.aggregate import Aggregate
from kdbench.stats.decision import Decision
from kdbench.stats.headline import TEST_COLUMN, how_to_choose, shown_answers
from kdbench.wording import counted

FULL = {"done", "imported"}
"""Statuses of cells that lack no result."""
MARKS = {
    "leading": marks.LEADING,
    "unplaced": marks.UNPLACED,
    "up": marks.BETTER,
    "down": marks.WORSE,
}
MARK_WORDS = {
    "leading": "may be the best",
    "unplaced": "cannot be placed",
    "up": "better than the baseline",
    "down": "worse than the baseline",
}


@dataclass(frozen=True)
class Head:
    """The head of a column.

    Attributes:
        label: its name.
        small: a second line.
        kind: "number" or "text", how it is sorted.
        first: "up" if the smallest value comes first when the column is sorted, otherwise "down".
        pair: index of its pair; None for the columns over pairs.
        words: whether the column holds words, which narrow screens leave out.
        sorted: whether the rows are in this column's order.
    """

    label: str
    small: str = ""
    kind: str = "number"
    first: str = "down"
    pair: int | None = None
    words: bool = False
    sorted: bool = False


@dataclass(frozen=True)
class TableSection:
    """All values of ``table.html.j2`` and ``cell_map.html.j2``.

    Attributes:
        rows: of the table, in their order.
        columns: its pairs.
        heads: of all columns.
        baseline: row that differences are taken to; None if the grid lacks it.
        headline: sentence on the numbers of the table.
        held_out: whether the numbers are of held-out images, and test accuracies come last.
        counted: number of pairs that the means are over.
        ranked: whether there are columns of ranks.
        accuracy: scale of the bars of accuracies.
        time: scale of the bars of times.
        choices: of the filters: key, label, name of all together, values; two values or more.
        seeds: of the grid.
        legend: sentences below the table.
        files: (link, text) of the table in other formats.
        opens: whether cells open.
        incomplete: rows with a cell that lacks a result.
        complete: a sentence if no cell lacks a result, otherwise empty.
    """

    rows: Sequence[TableRow]
    columns: Sequence[Column]
    heads: Sequence[Head]
    baseline: str | None
    headline: str
    held_out: bool
    counted: int
    ranked: bool
    accuracy: LengthScale | None
    time: LengthScale | None
    choices: Sequence[tuple[str, str, str, Sequence[str]]]
    seeds: int
    legend: Sequence[str]
    files: Sequence[tuple[str, str]]
    opens: bool
    incomplete: Sequence[TableRow]
    complete: str


def table_section(
    aggregate: Aggregate, rows: Sequence[TableRow], columns: Sequence[Column], *, opens: bool
) -> TableSection:
    """Collect what the section shows.

    Args:
        aggregate: the grid's statistics.
        rows: of the main table.
        columns: of the main table.
        opens: whether cells open.
    """
    decision = aggregate.decision
    held_out = aggregate.headline.held_out
    ranked = decision.over.standings is not None and not held_out
    scale = LengthScale.around(row.accuracy for row in rows) if opens else None
    return TableSection(
        rows=rows,
        columns=columns,
        heads=_heads(columns, decision, ranked=ranked, held_out=held_out),
        baseline=decision.baseline,
        headline=_headline(aggregate),
        held_out=held_out,
        counted=_counted(decision),
        ranked=ranked,
        accuracy=scale,
        time=LengthScale.from_zero(row.times for row in rows) if opens else None,
        choices=_choices(rows, columns),
        seeds=len(aggregate.evidence.grid.seeds),
        legend=[*_legend(aggregate), *_scales(scale)],
        files=_files(aggregate),
        opens=opens,
        incomplete=[row for row in rows if any(cell.status not in FULL for cell in row.cells)],
        complete=_complete(aggregate, rows),
    )


def _heads(
    columns: Sequence[Column], decision: Decision, *, ranked: bool, held_out: bool
) -> list[Head]:
    heads = [
        Head("Method", kind="text", first="up"),
        Head("Mean", f"of {counted(_counted(decision), 'pair')}, %", sorted=True),
    ]
    if decision.baseline:
        heads.append(Head(f"− {decision.baseline}", "points [95 % interval]"))
    if ranked:
        heads += [
            Head("Rank", "range", first="up"),
            Head("Behind", "at most", first="up"),
        ]
    if decision.baseline:
        heads.append(Head("Time", f"of {decision.baseline}’s", first="up"))
    words = {"same": "same architecture", "cross": "cross architecture"}
    for i, column in enumerate(columns):
        heads.append(Head(column.name, words.get(column.architecture, ""), pair=i))
    if held_out:
        heads.append(Head(TEST_COLUMN, f"%, {counted(_counted(decision), 'pair')}"))
    return [
        *heads,
        Head("Family", kind="text", first="up", words=True),
        Head("Year", "of the paper", words=True),
    ]


def _counted(decision: Decision) -> int:
    """Count the pairs that means are over: all begun ones if none has an interval."""
    return len(decision.over.pairs) or sum(bool(one.means) for one in decision.pairs.values())


def _choices(
    rows: Sequence[TableRow], columns: Sequence[Column]
) -> list[tuple[str, str, str, Sequence[str]]]:
    choices = [
        ("family", "Family", "all", [row.family for row in rows if not row.baseline]),
        ("data", "Data", "all", [column.dataset for column in columns]),
        ("pair", "Pair", "all", [column.name for column in columns]),
        ("arch", "Architectures", "same or cross", [column.architecture for column in columns]),
    ]
    distinct = [(*choice[:3], list(dict.fromkeys(filter(None, choice[3])))) for choice in choices]
    return [choice for choice in distinct if len(choice[3]) > 1]


def _headline(aggregate: Aggregate) -> str:
    what = aggregate.headline.name.capitalize()
    baseline = aggregate.decision.baseline
    second = f", and the difference to {baseline} in points" if baseline else ""
    first = f"{what} after the last epoch in percent, mean over seeds{second}."
    return " ".join([first, *shown_answers(aggregate.headline)])


def _legend(aggregate: Aggregate) -> list[str]:
    """Explain marks, brackets and ranks, each only if the table has it."""
    decision = aggregate.decision
    if aggregate.headline.held_out:
        return [f"{how_to_choose(aggregate.evidence.grid)}."]
    lines = [marks.legend(decision)] if decision.rows else []
    unranked = places_of_methods.no_ranking(decision)
    lines += [unranked] if unranked else places_of_methods.not_ranked(aggregate)
    return [*lines, *places_of_methods.left_out(decision)]


def _scales(accuracy: LengthScale | None) -> list[str]:
    if accuracy is None:
        return []
    return [f"Bars of means: from {accuracy.start:g} to {accuracy.end:g} %; of times: from 0."]


def _files(aggregate: Aggregate) -> list[tuple[str, str]]:
    runs = {run.id for cell in aggregate.evidence.cells for run in cell.runs}
    files = [
        ("leaderboard.csv", "CSV"),
        ("leaderboard.tex", "TeX"),
        ("leaderboard.parquet", "Parquet"),
    ]
    if len(runs) <= archive.MOST:
        files.append(("records.parquet", "All records"))
    return files


def _complete(aggregate: Aggregate, rows: Sequence[TableRow]) -> str:
    if not {cell.status for row in rows for cell in row.cells} <= FULL:
        return ""
    cells = sum(len(row.cells) for row in rows)
    seeds = counted(len(aggregate.evidence.grid.seeds), "seed")
    return f"No result is missing: all {counted(cells, 'cell')} have all {seeds}."


def values(section: TableSection) -> dict[str, Any]:
    """Return the section and the texts of its marks under the templates' names."""
    return {"board": section, "marks": MARKS, "mark_words": MARK_WORDS}
