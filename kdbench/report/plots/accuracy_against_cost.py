"""Accuracy against training time: a panel per pair, with the Pareto front."""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

from kdbench.report.plots import labels, style
from kdbench.report.plots.style import CURVE, LINES, MEAN, Sheet, capped, paper, plain
from kdbench.report.tables import marks
from kdbench.stats.decision import Decision
from kdbench.stats.headline import ON_TEST, Headline
from kdbench.stats.paired_differences import Contrasts

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAIRS = 8
"""The most pairs drawn: names need room."""
NAMES = 45
"""With more methods only the front is labelled."""
TICKS = (
    (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 15, 20, 30, 50, 100, 200, 500, 1000),
    (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.8),
)
"""Candidate ticks of the time axis; the first set with three visible ticks is used."""


@dataclass(frozen=True)
class Point:
    """A method on a pair: its time over the baseline's, and its mean accuracy."""

    method: str
    time: float
    accuracy: float


def front(points: Sequence[Point]) -> list[Point]:
    """Return the Pareto front, cheapest first."""
    out: list[Point] = []
    for point in sorted(points, key=lambda p: (p.time, -p.accuracy)):
        if not out or point.accuracy > out[-1].accuracy:
            out.append(point)
    return out


@paper()
def trade_off(
    title: str, frame: "pd.DataFrame", decision: Decision, headline: Headline = ON_TEST
) -> "Figure":
    """Draw mean accuracy over training time, including the student alone, a panel per pair.

    Marks are full for methods that may be the best of the pair. One bar shows the size of a typical
    95 % interval of a difference to the baseline: a bar at each point would hide the points.

    Args:
        title: of the figure.
        frame: ``Aggregate.frame``; ``time_ratio`` is training time over the baseline's.
        decision: for the baseline, marks and intervals.
        headline: the accuracy in the frame.
    """
    baseline = str(decision.baseline)
    pairs = list(dict.fromkeys(frame["pair"]))
    shown = style.first(pairs, 1)[:PAIRS]
    across = min(len(shown), 2) or 1
    sheet = Sheet(across, size=(4.2, 3.4), left=0.7, gap=(0.6, 0.75), bottom=0.8)
    figure, axes = sheet.draw(title + capped(len(shown), len(pairs), "pairs"), range(len(shown)))
    any_full = False
    for i, (axis, pair) in enumerate(zip(axes, shown, strict=True)):
        rows = frame[(frame["pair"] == pair) & (frame["method"] != "teacher")]
        points = _points(rows)
        half = _half_interval(decision.pairs[pair].contrasts, baseline)
        leading = {
            point.method
            for point in points
            if marks.of_row(decision.on_pair[pair], point.method) == marks.LEADING
        }
        any_full = any_full or bool(leading)
        _panel(figure, axis, points, baseline, leading, half)
        missing = len(rows) - len(points)
        if points and missing:
            axis.text(
                *(0.01, 0.97), f"{missing} not done", transform=axis.transAxes, va="top",
                fontsize=6.5, style="italic", color=LINES,
            )  # fmt: skip
        axis.set_title(plain(pair, 60), fontsize=9)
        if i % across == 0:
            axis.set_ylabel(f"{headline.name}, last epoch, %")
        if i + across >= len(shown):
            axis.set_xlabel(f"training time relative to {plain(baseline)}")
    _legend(figure, baseline, any_full)
    return figure


def _points(rows: "pd.DataFrame") -> list[Point]:
    """List the methods that have both a time and an accuracy."""
    every: Iterable[Any] = rows[["method", "time_ratio", "mean"]].itertuples(index=False)
    points = [Point(r.method, float(r.time_ratio), float(r.mean)) for r in every]
    return [p for p in points if 0 < p.time < math.inf and math.isfinite(p.accuracy)]


def _half_interval(contrasts: Contrasts, baseline: str) -> float:
    """Return half the width of a typical interval of a difference to the baseline; 0 if unknown."""
    widths = [c.high - c.low for c in contrasts.once() if c.known and baseline in (c.row, c.other)]
    return median(widths) / 2 if widths else 0.0


def _panel(
    figure: "Figure",
    axis: "Axes",
    points: Sequence[Point],
    baseline: str,
    leading: Collection[str],
    half: float,
) -> None:
    if not points:
        axis.text(0.5, 0.5, "no results", ha="center", style="italic", transform=axis.transAxes)
        axis.set_xticks([])
        axis.set_yticks([])
        style.bare(axis)
        return
    compared = [point.accuracy for point in points if point.method in ("student", baseline)]
    low, high = style.window([point.accuracy for point in points], compared)
    best = front(points)
    axis.set_xscale("log")
    # A panel smaller than the interval would exaggerate differences.
    room = max(0.05 * (high - low), 1.2 * half - (high - low) / 2)
    axis.set_ylim(low - room, high + room)
    first, last = min(point.time for point in points), max(point.time for point in points)
    span = max(last / first, 1.5)
    axis.set_xlim(first / span**0.1, max(last, first * span**0.5) * span**0.2)
    inside = [
        [tick for tick in ticks if axis.get_xlim()[0] <= tick <= axis.get_xlim()[1]]
        for ticks in TICKS
    ]
    some = next((ticks for ticks in inside if len(ticks) > 2), max(inside, key=len))
    axis.set_xticks(some, [f"{tick:g}" for tick in some])
    axis.locator_params(axis="y", nbins=7)
    axis.minorticks_off()
    axis.grid(color="0.92", linewidth=0.6)
    axis.set_axisbelow(True)
    style.bare(axis, "left", "bottom")
    steps = [*best, Point("", axis.get_xlim()[1], best[-1].accuracy)]
    corners = [(p.time, max(p.accuracy, low)) for p in steps]
    axis.plot(*zip(*corners, strict=True), drawstyle="steps-post", color=MEAN, linewidth=1.2)
    _marks(axis, points, (low, high), leading, baseline)
    named = [point for point in points if len(points) <= NAMES or point in best]
    bar = (axis.get_xlim()[1] / span**0.04, axis.get_ylim()[0] + room / 5 + half)
    if half:
        axis.errorbar(*bar, yerr=half, color=LINES, capsize=2, linewidth=1, zorder=1)
        corners += [(bar[0], bar[1] + half), (bar[0], bar[1] - half)]
    _names(figure, axis, named, (low, high), corners)


def _marks(
    axis: "Axes",
    points: Sequence[Point],
    limits: tuple[float, float],
    leading: Collection[str],
    baseline: str,
) -> None:
    """Draw each point, full if it may be the best; outliers are triangles at the edge."""
    low, high = limits
    drawn: dict[tuple[str, bool], list[tuple[float, float]]] = {}
    for point in points:
        y = min(max(point.accuracy, low), high)
        kind = {"student": "s", baseline: "D"}.get(point.method, "o")
        kind = kind if y == point.accuracy else "v" if point.accuracy < low else "^"
        drawn.setdefault((kind, point.method in leading), []).append((point.time, y))
    for (kind, full), positions in drawn.items():
        axis.plot(
            *zip(*positions, strict=True), kind, markersize=5, markeredgecolor=CURVE,
            markeredgewidth=1, markerfacecolor=CURVE if full else "white", zorder=3,
        )  # fmt: skip


def _names(
    figure: "Figure",
    axis: "Axes",
    points: Sequence[Point],
    limits: tuple[float, float],
    steps: Sequence[tuple[float, float]],
) -> None:
    """Write each point's name next to it, with a connecting line if it is further away."""
    import numpy as np
    from matplotlib.transforms import offset_copy

    low, high = limits
    clear: dict[str, Any] = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.3}
    texts = [plain(p.method, 22) for p in points]
    for i, point in enumerate(points):
        texts[i] += "" if low <= point.accuracy <= high else f" {point.accuracy:.1f}"
    data = [(p.time, min(max(p.accuracy, low), high)) for p in points]
    # All lengths are in points, so that positions do not depend on the resolution.
    unit = 72 / figure.dpi
    at = axis.transData.transform(data) * unit
    box = axis.get_window_extent()
    inside = (box.x0 * unit, box.y0 * unit, box.x1 * unit, box.y1 * unit)
    sizes = [(style.width(text, 6.5) * 72 + 4, 7.5) for text in texts]
    turns = axis.transData.transform(steps) * unit
    lines = []
    for (x0, y0), (x1, y1) in pairwise(turns):
        lines += [(x0, y0 - 1, x1, y0 + 1), (x1 - 1, min(y0, y1), x1 + 1, max(y0, y1))]
    corners = labels.place([(float(x), float(y)) for x, y in at], sizes, inside, 3.2, lines)
    for text, xy, (x, y), corner, (wide, tall) in zip(texts, data, at, corners, sizes, strict=True):
        dx, dy = corner[0] - x, corner[1] - y
        near = np.hypot(max(dx, -dx - wide, 0), max(dy, -dy - tall, 0))
        beside = offset_copy(axis.transData, figure, dx + 2, dy + 1.6, units="points")
        axis.text(*xy, text, transform=beside, fontsize=6.5, zorder=4, va="baseline", bbox=clear)
        if near > 7:
            edge = (min(max(0, dx), dx + wide), min(max(0, dy), dy + tall))
            axis.annotate(
                "", xy, edge, textcoords="offset points", zorder=2.5,
                arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.5, "shrinkB": 3,
                            "shrinkA": 0},
            )  # fmt: skip


def _legend(figure: "Figure", baseline: str, any_full: bool) -> None:
    from matplotlib.lines import Line2D

    ring: dict[str, Any] = {
        "linestyle": "", "markersize": 5, "markeredgecolor": CURVE, "markerfacecolor": "white"
    }  # fmt: skip
    entries = [
        Line2D([], [], marker="o", label="method", **ring),
        Line2D([], [], marker="D", label=plain(baseline), **ring),
        Line2D([], [], marker="s", label="student alone", **ring),
        *([Line2D([], [], marker="o", label="full: may be the best",
                  **ring | {"markerfacecolor": CURVE})] if any_full else []),
        Line2D([], [], color=MEAN, label="Pareto front of the means", linewidth=1.2),
        Line2D([], [], color=LINES, marker="|", linestyle="", markersize=9,
               label=f"typical 95 % interval of a difference to {plain(baseline, 12)}"),
    ]  # fmt: skip
    figure.legend(
        handles=entries, loc="lower center", ncols=6 if figure.get_figwidth() > 6 else 3,
        fontsize=7, frameon=False,
    )  # fmt: skip
