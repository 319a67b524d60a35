"""The main table in a terminal, with as many pairs as fit side by side."""

from typing import TYPE_CHECKING

from kdbench.report.tables import accuracy
from kdbench.stats.aggregate import Aggregate

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table as RichTable

PADDING, EDGE = 3, 1
"""Characters of padding per column, and at the table's end."""
LONG = 16
"""Longer texts may wrap, e.g. the reason why a cell is empty."""


class Terminal:
    """The table of accuracies for ``rich.print``.

    If the terminal is too narrow for all pairs, the table has the first ones that fit, at least
    one, and a line that says so: a thousand columns of one character would be unreadable.
    """

    def __init__(self, aggregate: Aggregate) -> None:
        """Create the table from a grid's statistics."""
        self.title = aggregate.evidence.grid.title
        self.table = accuracy.accuracy(aggregate.frame, ari_of=aggregate.methods.reference)
        self.pairs = set(aggregate.summaries)

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        yield self.fitting(options.max_width)

    def fitting(self, width: int) -> "RichTable":
        """Return the table for a terminal of ``width`` characters."""
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        columns = self.columns(width)
        hidden = len(self.pairs.difference(columns))
        out = RichTable(title=Text(self.title), box=box.SIMPLE_HEAD)
        for i, name in enumerate(columns):
            out.add_column(Text(name), justify="left" if i == 0 else "right")
        for i, row in enumerate(zip(*(self.table.rows[name] for name in columns), strict=True)):
            marked = zip(columns, row, strict=True)
            bold = self.table.bold
            out.add_row(
                *(Text(str(text), "bold" if (i, name) in bold else "") for name, text in marked)
            )
        caption = "Bold: the best and all methods not significantly different from it. "
        caption += "(k/n): k of n seeds."
        if hidden:
            caption += f"\nThe first {len(self.pairs) - hidden} of {len(self.pairs)} pairs are "
            caption += "shown; the page below, index.html and leaderboard.csv have all of them."
        out.caption = Text(caption)
        return out

    def columns(self, width: int) -> list[str]:
        """Return all columns that are not pairs, and the pairs that fit into ``width``."""
        names = [str(name) for name in self.table.rows.columns]
        pairs = [name for name in names if name in self.pairs]
        left = width - EDGE - sum(map(self.width, set(names) - self.pairs))
        fitting = set(pairs[:1])
        for name in pairs:
            left -= self.width(name)
            if left < 0:
                break
            fitting.add(name)
        return [name for name in names if name in fitting or name not in self.pairs]

    def width(self, name: str) -> int:
        """Return the width of a column in which no number wraps and no word is broken."""
        from rich.cells import cell_len

        texts = [text for text in map(str, self.table.rows[name]) if cell_len(text) <= LONG]
        return max(map(cell_len, (*name.split(), *texts))) + PADDING
