"""The axis of the page's first picture: values to positions, reference lines and ticks."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kdbench.report import numbers
from kdbench.stats.paired_differences import Contrast

INSIDE = 0.9
"""Share of the intervals that fit into the plot; longer ones are cut, with an arrow."""


@dataclass(frozen=True)
class Line:
    """A vertical line: ``x`` in percent, its label, and "left" or "right" if it is outside.

    ``kind``: "tick", "zero" (the baseline), "student" or "teacher".
    """

    x: float
    label: str
    kind: str = "tick"
    outside: str = ""


@dataclass(frozen=True)
class Point:
    """A row's value and interval, in the axis's unit; nan where unknown."""

    row: str
    value: float
    low: float = math.nan
    high: float = math.nan
    contrast: Contrast | None = None


@dataclass(frozen=True)
class Scale:
    """Maps values to percent of the plot's width."""

    low: float
    high: float

    @classmethod
    def of(
        cls, points: Sequence[Point], references: Mapping[str, float], zero: str | None
    ) -> "Scale":
        """Fit all dots, nine of ten intervals and, if it is near, the teacher."""
        values = [point.value for point in points]
        ends = sorted(p.value - p.low for p in points if numbers.known(p.low))
        reach = ends[min(math.ceil(INSIDE * len(ends)), len(ends)) - 1] if ends else 0.0
        known = [end for p in points for end in (p.low, p.high) if p.value - p.low <= reach + 1e-9]
        values += known + ([] if zero is None else [0.0])
        low, high = min(values), max(values)
        for value in references.values():
            if low - 0.35 * (high - low) <= value <= high + 0.35 * (high - low):
                low, high = min(low, value), max(high, value)
        pad = 0.04 * (high - low) or 1.0
        return cls(low - pad, high + pad)

    def __call__(self, value: float) -> float:
        """Return a position in percent, inside the plot."""
        share = (value - self.low) / (self.high - self.low)
        return round(100 * min(max(share, 0.0), 1.0), 2)

    def line(self, kind: str, value: float, zero: str | None) -> Line:
        """Return a reference line; outside the plot, its label has the value."""
        outside = "left" if value < self.low else "right" if value > self.high else ""
        label = str(zero) if kind == "zero" else kind
        if outside:
            number = numbers.number(value, 1) if zero is None else numbers.signed(value, 1)
            label = f"{kind} {number}"
        return Line(self(value), label, kind, outside)

    def ticks(self) -> Iterable[Line]:
        """Yield round numbers, about six."""
        raw = (self.high - self.low) / 6
        size = 10 ** math.floor(math.log10(raw))
        step = next(k * size for k in (1, 2, 5, 10) if k * size >= raw * (1 - 1e-9))
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        for i in range(math.ceil(self.low / step), math.floor(self.high / step) + 1):
            yield Line(self(i * step), numbers.number(i * step, digits))
