"""The first picture of a grid's page, small, from the grid's ``across.csv`` alone."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

PIXELS = 4
"""Height of a row."""


@dataclass(frozen=True)
class Mark:
    """A row: ends and dot in percent; ``leading``: it is marked as one that may be the best."""

    y: int
    low: float
    high: float
    x: float
    leading: bool


@dataclass(frozen=True)
class Thumbnail:
    """Differences to the baseline over pairs.

    Attributes:
        marks: the rows, the highest first.
        zero: position of the baseline in percent.
        height: in pixels.
    """

    marks: tuple[Mark, ...]
    zero: float
    height: int


@dataclass(frozen=True)
class _Row:
    diff: float
    low: float
    high: float
    leading: bool


def read(path: Path) -> Thumbnail | None:
    """Draw the differences in a file; None if there are none, or it is missing or damaged."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
        states = [line.get("state") for line in lines if line.get("state")]
        shade = 2 * sum(state != "behind" for state in states) <= len(states)
        rows = [_row(line, shade=shade) for line in lines]
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return None
    drawn = sorted((row for row in rows if math.isfinite(row.diff)), key=lambda row: -row.diff)
    if not drawn:
        return None
    values = [0.0, *(row.diff for row in drawn)]
    pad = 0.25 * (max(values) - min(values)) or 1.0
    least, most = min(values) - pad, max(values) + pad

    def place(value: float) -> float:
        return round(100 * min(max((value - least) / (most - least), 0.0), 1.0), 1)

    marks = [
        Mark(
            PIXELS * i + PIXELS // 2, place(row.low), place(row.high), place(row.diff), row.leading
        )
        for i, row in enumerate(drawn)
    ]
    return Thumbnail(tuple(marks), place(0.0), PIXELS * len(marks))


def _row(row: dict[str, str], *, shade: bool) -> _Row:
    """Read a line; without an interval, both of its ends are the difference."""
    diff = float(row["diff"] or "nan")
    ends = [float(row[key] or "nan") for key in ("diff_lo", "diff_hi")]
    low, high = (end if math.isfinite(end) else diff for end in ends)
    return _Row(diff, low, high, shade and row.get("state") == "leading")
