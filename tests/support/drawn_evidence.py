"""Evidence to draw, and functions that read figures back."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from fake_grids import make_cells, make_grid, make_records, typical
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kdbench.grid.run import Run
from kdbench.report.plots.accuracy_against_cost import trade_off
from kdbench.runs.evidence import Evidence, History
from kdbench.stats.aggregate import aggregate

HOSTILE = (
    *("$x_1$", "_a_", "a" * 300, "<b>&amp;--><script>", "方法 é 🎉", "x\n\x00y"),
    *("%s{0}\\frac", "${\\"),
)
"""Difficult names that YAML allows."""


def make_evidence(
    pairs: Sequence[tuple[str, str]] = (("big", "small"),),
    methods: Sequence[str] = ("kd", "at", "semckd"),
    accuracy: Callable[[Run], float] = typical,
    history: Callable[[str], History] = lambda run: [],
    **changes: Any,
) -> Evidence:
    grid = make_grid(pairs, **changes)
    cells = make_cells(grid, methods)
    return Evidence(grid, cells, make_records(cells, accuracy), history)


def frame_of(evidence: Evidence) -> Any:
    return aggregate(evidence).frame


def cost_of(evidence: Evidence, title: str = "T") -> Figure:
    """Draw accuracy against cost."""
    statistics = aggregate(evidence)
    return trade_off(title, statistics.frame, statistics.decision)


def points(axis: Axes, marker: str = "o", colour: str | None = None) -> list[tuple[float, float]]:
    """Return the coordinates of markers of one kind, in drawing order."""
    coordinates: list[tuple[float, float]] = []
    for line in axis.lines:
        if line.get_marker() == marker and colour in (None, line.get_color()):
            coordinates += [(x, y) for x, y in np.asarray(line.get_xydata(), float).tolist()]
    return coordinates


def curve(axis: Axes, colour: str) -> Line2D | None:
    """Return the first line of a colour; None if there is none."""
    lines = [
        line for line in axis.lines if line.get_color() == colour and line.get_linestyle() != "None"
    ]
    return lines[0] if lines else None


def texts(axis: Axes) -> list[str]:
    return [text.get_text() for text in axis.texts]


def ticks(axis: Axes, which: str = "y") -> list[str]:
    labels = axis.get_yticklabels() if which == "y" else axis.get_xticklabels()
    return [text.get_text() for text in labels]


def luminance(colour: Any, alpha: float = 1.0) -> float:
    """Return the relative luminance of a colour on white (WCAG 2.1): 0 for black, 1 for white."""
    rgb = alpha * np.asarray(to_rgb(colour)) + 1 - alpha
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(first: float, second: float) -> float:
    """Return the contrast ratio of two luminances, 1 to 21."""
    return (max(first, second) + 0.05) / (min(first, second) + 0.05)
