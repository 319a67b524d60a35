"""Bars beside the numbers of the main table: their positions in a drawing 100 wide."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from kdbench.report import numbers
from kdbench.stats.paired_differences import Contrast

SHARE = 0.9
"""Share of the intervals that fit into the drawing; longer ones are cut."""


@dataclass(frozen=True)
class IntervalBar:
    """An interval with 0 in the middle, at 50: ends, the value, and whether an end is cut."""

    low: float
    high: float
    middle: float
    cut: bool


@dataclass(frozen=True)
class LengthScale:
    """Lengths of bars that grow with a value.

    Attributes:
        start: value of a bar of length 0.
        end: value of a bar of length 100.
    """

    start: float
    end: float

    @classmethod
    def around(cls, values: Iterable[float]) -> "LengthScale | None":
        """Choose whole numbers around all known values; None without a value."""
        known = [value for value in values if numbers.known(value)]
        return cls(math.floor(min(known)), math.ceil(max(known))) if known else None

    @classmethod
    def from_zero(cls, values: Iterable[float]) -> "LengthScale | None":
        """Begin at 0 and end at the largest known value; None without a value."""
        known = [value for value in values if numbers.known(value)]
        return cls(0.0, max(known)) if known else None

    def length(self, value: float) -> float | None:
        """Return the length of a bar; None if the value is unknown or all bars have one length."""
        if not numbers.known(value) or self.end <= self.start:
            return None
        return round(100 * min(max((value - self.start) / (self.end - self.start), 0.0), 1.0), 1)


def reach(contrasts: Iterable[Contrast]) -> float:
    """Return the points from a bar's middle to its end; 0 without an interval."""
    ends = sorted(max(abs(c.low), abs(c.high)) for c in contrasts if c.known)
    return ends[math.ceil(SHARE * len(ends)) - 1] if ends else 0.0


def interval_bar(contrast: Contrast | None, points: float) -> IntervalBar | None:
    """Draw a difference's interval; None if it has none.

    Args:
        contrast: the difference.
        points: from the middle of the drawing to its end; see ``reach``.
    """
    if contrast is None or not contrast.known or points <= 0:
        return None
    ends = [50 + 48 * value / points for value in (contrast.low, contrast.high, contrast.diff)]
    left, right, centre = (round(min(max(end, 1.0), 99.0), 1) for end in ends)
    return IntervalBar(left, right, centre, cut=ends[0] < 1 or ends[1] > 99)
