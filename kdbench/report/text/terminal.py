"""The main table in a terminal: as many pairs as fit beside each other."""

from typing import TYPE_CHECKING

from kdbench.report.tables import accuracy
from kdbench.stats.aggregate import Aggregate

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table as RichTable

PADDING, EDGE = 3, 1
"""Characters beside the text of a column, and more of them at the table's end."""
LONG = 16
"""Characters of a text that may wrap, such as why a cell is empty."""


class Terminal:
    """The table of accuracies for ``rich.print``.

    Where the terminal is too narrow for all pairs it has the first that fit, at least one, and a
    line that says so: a thousand columns, each a character wide, tell nobody anything.
    """

    def __init__(self, aggregate: Aggregate) -> None:
        """Select the table from a grid's statistics."""
        self.title = aggregate.evidence.grid.title
        self.table = accuracy.accuracy(aggregate.frame, ari_of=aggregate.methods.reference)
        self.pairs = set(aggregate.summaries)

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        yield self.fitting(options.max_width)

    def fitting(self, width: int) -> "RichTable":
        """The table in so many characters."""
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        shown = self.columns(width)
        left = len(self.pairs) - len(self.pairs.intersection(shown))
        out = RichTable(title=Text(self.title), box=box.SIMPLE_HEAD)
        for i, name in enumerate(shown):
            out.add_column(Text(name), justify="left" if i == 0 else "right")
        for i, row in enumerate(zip(*(self.table.rows[name] for name in shown), strict=True)):
            marked = zip(shown, row, strict=True)
            bold = self.table.bold
            out.add_row(
                *(Text(str(text), "bold" if (i, name) in bold else "") for name, text in marked)
            )
        said = "Bold: the best, and all not distinguishable from it. (k/n): k of n seeds."
        if left:
            said += f"\nThe first {len(self.pairs) - left} of {len(self.pairs)} pairs: the page "
            said += "below, its index.html and its leaderboard.csv have all of them."
        out.caption = Text(said)
        return out

    def columns(self, width: int) -> list[str]:
        """Those that fit into so many characters; what is no pair is always among them."""
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
        """Characters of a column in which no number wraps and no word is broken."""
        from rich.cells import cell_len

        texts = [text for text in map(str, self.table.rows[name]) if cell_len(text) <= LONG]
        return max(map(cell_len, (*name.split(), *texts))) + PADDING
