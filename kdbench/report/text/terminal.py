"""The main table in a terminal, with as many pairs as fit side by side."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from kdbench.report.tables import accuracy
from kdbench.report.tables.over_pairs import ordered, over_pairs
from kdbench.report.tables.table import Table, in_order
from kdbench.stats.aggregate import Aggregate
from kdbench.stats.headline import TEST_COLUMN, how_to_choose

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table as RichTable

PADDING, EDGE = 3, 1
"""Characters of padding per column, and at the table's end."""
LONG = 24
"""Longer texts may wrap, e.g. the reason why a cell is empty."""
SEEDS = "(k/n): k of n seeds."


class Terminal:
    """The table over pairs and, right of it, the accuracies on single pairs, for ``rich.print``.

    If the terminal is too narrow for all pairs, the table has the first ones that fit, and a line
    that says so: a thousand columns of one character would be unreadable. Before any run has
    finished there is nothing over pairs, and at least one pair is shown.
    """

    def __init__(self, aggregate: Aggregate) -> None:
        """Create the table from a grid's statistics."""
        self.title = aggregate.evidence.grid.title
        self.pairs = set(aggregate.summaries)
        rows = ordered(aggregate)
        by_pair = accuracy.accuracy(
            in_order(aggregate.frame, rows),
            decision=aggregate.decision,
            headline=aggregate.headline,
            ari_of=aggregate.methods.reference,
        )
        self.started = bool((aggregate.frame["n"] > 0).any())
        self.rows, self.bold = by_pair.rows, by_pair.bold
        if self.started:
            main = _with_marks(over_pairs(aggregate))
            self.rows, self.bold = _joined(main, by_pair, rows), main.bold
        self.caption = _caption(aggregate)

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        yield self.fitting(options.max_width)

    def fitting(self, width: int) -> "RichTable":
        """Return the table for a terminal of ``width`` characters."""
        from rich import box
        from rich.cells import cell_len
        from rich.table import Table as RichTable
        from rich.text import Text

        columns = self.columns(width)
        hidden = len(self.pairs.difference(columns))
        out = RichTable(title=Text(self.title), box=box.SIMPLE_HEAD)
        for i, name in enumerate(columns):
            # Only long texts wrap: a column of short ones has its width.
            wraps = any(cell_len(str(text)) > LONG for text in self.rows[name])
            out.add_column(
                Text(name),
                justify="left" if i == 0 else "right",
                width=None if wraps else self.width(name) - PADDING,
            )
        for i, row in enumerate(zip(*(self.rows[name] for name in columns), strict=True)):
            marked = zip(columns, row, strict=True)
            out.add_row(
                *(
                    Text(str(text), "bold" if (i, name) in self.bold else "")
                    for name, text in marked
                )
            )
        caption = self.caption
        if hidden:
            shown = len(self.pairs) - hidden
            first = f"The first {shown} of {len(self.pairs)} pairs are" if shown else "No pair is"
            caption += f"\n{first} shown; the page below, index.html and leaderboard.csv have all."
        out.caption = Text(caption)
        return out

    def columns(self, width: int) -> list[str]:
        """Return the first columns, and those of the others that fit into ``width``, in order."""
        names = [str(name) for name in self.rows.columns]
        # The name, the mean and the difference; without results, the name and one pair.
        least = sum(name not in self.pairs for name in names[:3]) if self.started else 2
        left = width - EDGE - sum(map(self.width, names[:least]))
        fitting = names[:least]
        for name in names[least:]:
            left -= self.width(name)
            if left < 0:
                break
            fitting.append(name)
        return fitting

    def width(self, name: str) -> int:
        """Return the width of a column in which no number wraps and no word is broken."""
        from rich.cells import cell_len

        texts = [text for text in map(str, self.rows[name]) if cell_len(text) <= LONG]
        return max(map(cell_len, (*name.split(), *texts))) + PADDING


def _caption(aggregate: Aggregate) -> str:
    if aggregate.headline.held_out:
        return f"{how_to_choose(aggregate.evidence.grid)}. {SEEDS}"
    decision = aggregate.decision
    if not decision.rows:
        return SEEDS
    told = f"▲▼: better or worse than {decision.baseline} after allowing for all "
    told += f"{decision.rows} rows (5 %). "
    return (
        f"Bold: the highest mean. {told if decision.baseline else ''}●: may be the best; ?: cannot "
        f"be placed. Brackets, rank and behind: 95 %. {SEEDS}"
    )


def _with_marks(table: Table) -> Table:
    """Move marks from their column to the difference, to save width."""
    if "Mark" not in table.rows:
        return table
    names = [str(name) for name in table.rows.columns]
    column = names[names.index("Mark") - 1]
    pairs = zip(table.rows[column], table.rows["Mark"], strict=True)
    texts = [f"{text} {mark}".rstrip() for text, mark in pairs]
    return replace(table, rows=table.rows.assign(**{column: texts}).drop(columns="Mark"))


def _joined(main: Table, by_pair: Table, rows: Sequence[str]) -> "pd.DataFrame":
    """Append the columns of single pairs to the table over pairs.

    Args:
        main: of ``over_pairs``, a line for each of ``rows``.
        by_pair: of ``accuracy``, in any order.
        rows: labels of the lines.
    """
    import pandas as pd

    labels = by_pair.rows["Method"].tolist()
    lines = by_pair.rows.iloc[[labels.index(row) for row in rows], 1:].reset_index(drop=True)
    joined = pd.concat([main.rows, lines], axis=1)
    last = [name for name in (TEST_COLUMN,) if name in joined]
    return joined[[name for name in joined if name not in last] + last]
