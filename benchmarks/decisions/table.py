"""A printed table: a Markdown table with a title."""

from dataclasses import dataclass

import numpy as np

from benchmarks.decisions.scenarios import Array
from benchmarks.decisions.simulation import Flags


@dataclass(frozen=True)
class Table:
    """A table of percentages.

    Attributes:
        title: what the cells are.
        head: names of the columns, the first of which is that of the rows.
        rows: cells as text.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        lines = (self.head, ("---",) * len(self.head), *self.rows)
        return "\n".join([f"{self.title}", "", *(f"| {' | '.join(line)} |" for line in lines)])


def percent(shares: Array | Flags | float, digits: int = 1) -> str:
    """Return a mean of shares or truths as a percentage."""
    return f"{100 * float(np.mean(shares)):.{digits}f}"
