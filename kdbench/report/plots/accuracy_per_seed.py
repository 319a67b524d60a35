"""Accuracy of every seed as a point: a panel per pair, a row per method."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kdbench.grid.run import Cell
from kdbench.report.plots import style
from kdbench.report.plots.style import LINES, MEAN, PAPER, SEEDS, Sheet, capped, paper, plain
from kdbench.runs.records import Record
from kdbench.stats.cell_summary import by_pair, summarise, teacher_accuracy
from kdbench.stats.headline import ON_TEST, Headline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 50
"""The most seeds drawn; more points would merge into a line."""


@paper()
def accuracy(
    title: str,
    cells: Sequence[Cell],
    records: Mapping[str, Record],
    headline: Headline = ON_TEST,
) -> "Figure":
    """Draw the accuracy of every seed; teacher and mean of the students alone are lines.

    Args:
        title: of the figure.
        cells: of all pairs.
        records: by run id.
        headline: the accuracy to draw.
    """
    pairs = by_pair(cells)
    methods = list(dict.fromkeys(cell.method for cell in cells if cell.method != "teacher"))
    rows = methods[: style.ROWS]
    shown = style.first(list(pairs), len(rows))
    seeds = max((len(cell.runs) for cell in cells), default=0)
    across = min(len(shown), 4 if len(rows) < 60 else 6) or 1
    sheet = Sheet(
        across,
        size=(2.9, 0.27 * (max(len(rows), 2) + 0.6)),
        left=max(style.widest([plain(method) for method in rows]) + 0.2, 0.5),
        gap=(0.2, 0.65),
        bottom=0.85,
        least=5.5,
    )
    title += capped(len(shown), len(pairs), "pairs") + capped(len(rows), len(methods), "methods")
    figure, axes = sheet.draw(title + capped(min(seeds, MOST), seeds, "seeds"), range(len(shown)))
    for i, (axis, pair) in enumerate(zip(axes, shown, strict=True)):
        _panel(axis, pair, rows, pairs[pair], records, headline)
        axis.set_yticks([])
        if i % across == 0:
            axis.set_yticks(range(len(rows)), [plain(method) for method in rows])
            axis.tick_params(axis="y", length=0)
        # The lowest panel of each column has the axis label, even if the last row is not full.
        if i + across >= len(shown):
            axis.set_xlabel(f"{headline.name}, last epoch, %")
    _legend(figure)
    return figure


def _panel(
    axis: "Axes",
    pair: str,
    methods: Sequence[str],
    cells: Sequence[Cell],
    records: Mapping[str, Record],
    headline: Headline,
) -> None:
    summaries = {cell.method: summarise(cell.runs, records, headline) for cell in cells}
    seeds: list[tuple[float, int]] = []
    means: list[tuple[float, int]] = []
    for y, method in enumerate(methods):
        summary = summaries.get(method)
        if summary is None or not summary.n:
            status = "not in the grid" if summary is None else summary.status
            axis.text(
                *(0.02, y), status, transform=axis.get_yaxis_transform(), va="center",
                fontsize=7, color=LINES, style="italic", bbox=PAPER, zorder=4,
            )  # fmt: skip
            continue
        seeds += [(accuracy, y) for accuracy in list(summary.accuracies.values())[:MOST]]
        means.append((summary.mean, y))
    axis.hlines(
        *(range(len(methods)), 0, 1), transform=axis.get_yaxis_transform(), color="0.9",
        linewidth=0.8, zorder=0,
    )  # fmt: skip
    student = summaries["student"].mean if "student" in summaries else math.nan
    low, high = style.window([accuracy for accuracy, _ in seeds], [student])
    inside = [point for point in seeds if low <= point[0] <= high]
    if inside:
        axis.plot(
            *zip(*inside, strict=True), "o", color=SEEDS, markersize=4.5, alpha=0.6,
            markeredgewidth=0, zorder=2,
        )  # fmt: skip
        axis.plot(
            *zip(*means, strict=True), "|", color=MEAN, markersize=13, markeredgewidth=2, zorder=3
        )
    if not math.isnan(student):
        axis.axvline(student, color=LINES, linewidth=1, linestyle="--", zorder=1)
    low, high = _teacher(axis, teacher_accuracy(cells, records, headline), low, high)
    axis.set_xlim(low, high)
    _beyond(axis, seeds, means)
    axis.set_title(plain(pair, 36), fontsize=9)
    axis.set_ylim(len(methods) - 0.4, -1)
    axis.locator_params(axis="x", nbins=6)
    style.bare(axis, "bottom")


def _teacher(axis: "Axes", accuracy: float, low: float, high: float) -> tuple[float, float]:
    """Draw the teacher as a line, or as text at the side if it would squeeze everything else.

    Returns:
        The new limits of the panel.
    """
    room = 1.5 * max(high - low, 1.0)
    if math.isnan(accuracy):
        return low, high
    if low - room <= accuracy <= high + room:
        axis.axvline(accuracy, color=LINES, linewidth=1.2, linestyle="-", zorder=1)
        margin = 0.06 * (high - low)
        return min(low, accuracy - margin), max(high, accuracy + margin)
    above = accuracy > high
    text = f"teacher {accuracy:.2f} →" if above else f"← teacher {accuracy:.2f}"
    axis.text(
        *(0.99 if above else 0.01, -0.66), text, transform=axis.get_yaxis_transform(),
        ha="right" if above else "left", va="center", fontsize=7, color=LINES, bbox=PAPER,
    )  # fmt: skip
    return low, high


def _beyond(
    axis: "Axes", seeds: Sequence[tuple[float, int]], means: Sequence[tuple[float, int]]
) -> None:
    """Mark seeds beyond the limits by a triangle at the side, and such a mean by a number."""
    low, high = axis.get_xlim()
    for edge, mark, out in (
        (low, "<", [point for point in seeds if point[0] < low]),
        (high, ">", [point for point in seeds if point[0] > high]),
    ):
        rows = sorted({y for _, y in out})
        axis.plot([edge] * len(rows), rows, mark, color=SEEDS, markersize=4.5, clip_on=False)
    for mean, y in means:
        if not low <= mean <= high:
            axis.text(
                *(0.03 if mean < low else 0.97, y), f"mean {mean:.2f}", fontsize=7, va="center",
                transform=axis.get_yaxis_transform(), ha="left" if mean < low else "right",
                color=LINES, bbox=PAPER, zorder=4,
            )  # fmt: skip


def _legend(figure: "Figure") -> None:
    from matplotlib.lines import Line2D

    entries = [
        Line2D([], [], color=SEEDS, marker="o", linestyle="", markersize=4.5, label="one seed"),
        Line2D(
            [], [], color=MEAN, marker="|", linestyle="", markersize=11, markeredgewidth=2,
            label="mean",
        ),
        Line2D([], [], color=LINES, linestyle="--", linewidth=1, label="student alone (mean)"),
        Line2D([], [], color=LINES, linestyle="-", linewidth=1.2, label="teacher"),
    ]  # fmt: skip
    figure.legend(handles=entries, loc="lower center", ncols=4, fontsize=8, frameon=False)
