"""A table of texts, and helpers to fill it."""

from collections import namedtuple
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from kdbench.grid.run import BASELINES

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Table:
    """A table to show; all of it is plain text that is still to be escaped.

    Attributes:
        title: heading; empty: none.
        rows: text, the first column names the row.
        bold: (row, column name) of what stands out.
        notes: said below.
        best: those of ``bold`` that are the highest of their column.
    """

    title: str
    rows: "pd.DataFrame"
    bold: frozenset[tuple[int, str]] = frozenset()
    notes: tuple[str, ...] = ()
    best: frozenset[tuple[int, str]] = frozenset()

    @property
    def lines(self) -> list[list[Any]]:
        """``rows`` as lists; of a thousand columns pandas looks for each when asked row by row."""
        lines: list[list[Any]] = self.rows.to_numpy(object).tolist()
        return lines


def methods_of(frame: "pd.DataFrame") -> list[str]:
    """Rows in their order, teacher and student first."""
    names = list(dict.fromkeys(frame["method"].tolist()))
    return sorted(names, key=lambda name: BASELINES.index(name) if name in BASELINES else 2)


def rows_of(frame: "pd.DataFrame") -> Iterable[tuple[tuple[str, str], Any]]:
    """(method, pair) and all columns of each row."""
    # As itertuples() does, which takes three times as long: it asks each column for each value.
    make = _row(tuple(frame.columns))._make
    for row in map(make, zip(*(frame[name].tolist() for name in frame), strict=True)):
        yield (row.method, row.pair), row


@cache
def _row(names: tuple[str, ...]) -> Any:
    return namedtuple("Row", names)


def wide(frame: "pd.DataFrame", texts: Mapping[tuple[str, str], str]) -> "pd.DataFrame":
    """Methods down, pairs across."""
    import pandas as pd

    methods, pairs = methods_of(frame), list(dict.fromkeys(frame["pair"].tolist()))
    columns = {pair: [texts.get((method, pair), "") for method in methods] for pair in pairs}
    return pd.DataFrame({"Method": methods} | columns, dtype=object)
