"""Cells and records to figures: no window, no state, the same bytes for the same records."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kdbench.records import Record
from kdbench.run import Cell
from kdbench.summary import by_pair, summarise, teacher_accuracy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = 28
"""More pairs than these are not drawn: nobody could read them."""

# Okabe and Ito's blue and vermilion: told apart by the colour-blind, and in grey by lightness.
SEEDS, MEAN, LINES = "#0072B2", "#D55E00", "#333333"
PAPER: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}


def accuracy(title: str, cells: Sequence[Cell], records: Mapping[str, Record]) -> "Figure":
    """Every seed's accuracy as a point, a panel per pair, methods down.

    Args:
        title: of the figure.
        cells: of all pairs; teacher and the mean of the students alone are drawn as lines, too.
    """
    from matplotlib.figure import Figure

    pairs = by_pair(cells)
    shown = list(pairs)[:PANELS]
    methods = list(dict.fromkeys(cell.method for cell in cells if cell.method != "teacher"))
    across = min(len(shown), 4) or 1
    down = math.ceil(len(shown) / across) or 1
    labels = max((len(method) for method in methods), default=0)
    width = max(0.085 * labels + 3.1 * across + 0.3, 5.5)
    panel = 0.27 * max(len(methods), 2) + 0.75
    figure = Figure(figsize=(width, panel * down + 0.95), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, sharey=True)
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    for axis, pair in zip(axes.flat, shown, strict=False):
        _panel(axis, pair, methods, pairs[pair], records)
    # The lowest panel of a column carries the axis's name, also where the last row is not full.
    for column in range(across):
        lowest = (len(shown) - 1 - column) // across
        axes[max(lowest, 0)][column].set_xlabel("test accuracy, last epoch, %")
    more = f" (first {PANELS} of {len(pairs)} pairs)" if len(pairs) > PANELS else ""
    figure.suptitle(f"{title}{more}".replace("$", r"\$"), fontsize=11)
    _legend(figure)
    # Once for both formats: finding the layout takes as long as drawing.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def svg(figure: "Figure") -> bytes:
    """The figure as SVG, without a date and with ids that do not change."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "kdbench"}):
        return _saved(figure, "svg", {"Date": None, "Creator": None})


def png(figure: "Figure") -> bytes:
    """The figure as PNG."""
    return _saved(figure, "png", {"Software": None})


def _panel(
    axis: "Axes",
    pair: str,
    methods: Sequence[str],
    cells: Sequence[Cell],
    records: Mapping[str, Record],
) -> None:
    found = {cell.method: summarise(cell.runs, records) for cell in cells}
    seeds: list[tuple[float, int]] = []
    means: list[tuple[float, int]] = []
    for y, method in enumerate(methods):
        summary = found.get(method)
        if summary is None or not summary.n:
            status = "not in the grid" if summary is None else summary.status
            axis.text(
                *(0.02, y), status, transform=axis.get_yaxis_transform(), va="center",
                fontsize=7, color=LINES, style="italic", bbox=PAPER, zorder=4,
            )  # fmt: skip
            continue
        seeds += [(accuracy, y) for accuracy in summary.accuracies.values()]
        means.append((summary.mean, y))
    if means:
        axis.plot(
            *zip(*seeds, strict=True), "o", color=SEEDS, markersize=4.5, alpha=0.6,
            markeredgewidth=0, zorder=2,
        )  # fmt: skip
        axis.plot(
            *zip(*means, strict=True), "|", color=MEAN, markersize=13, markeredgewidth=2, zorder=3
        )
    if "student" in found and found["student"].n:
        axis.axvline(found["student"].mean, color=LINES, linewidth=1, linestyle="--", zorder=1)
    values = [a for name in found if name != "teacher" for a in found[name].accuracies.values()]
    _teacher(axis, teacher_accuracy(cells, records), values)
    axis.set_title(pair, fontsize=9)
    axis.set_yticks(range(len(methods)), [method.replace("$", r"\$") for method in methods])
    axis.set_ylim(len(methods) - 0.4, -0.7)
    axis.margins(x=0.08)
    axis.grid(axis="y", color="0.9", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=8, length=2)
    axis.tick_params(axis="y", length=0)
    axis.xaxis.get_label().set_fontsize(8)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def _teacher(axis: "Axes", accuracy: float, values: Sequence[float]) -> None:
    """A line where the teacher is, or a word at the side where it would squeeze all the rest."""
    low, high = (min(values), max(values)) if values else (accuracy, accuracy)
    room = 1.5 * max(high - low, 1.0)
    if math.isnan(accuracy):
        return
    if low - room <= accuracy <= high + room:
        axis.axvline(accuracy, color=LINES, linewidth=1.2, linestyle="-", zorder=1)
        return
    above = accuracy > high
    text = f"teacher {accuracy:.2f} →" if above else f"← teacher {accuracy:.2f}"
    axis.text(
        *(0.99 if above else 0.01, -0.32), text, transform=axis.get_yaxis_transform(),
        ha="right" if above else "left", va="center", fontsize=7, color=LINES, bbox=PAPER,
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
    figure.legend(handles=entries, loc="outside lower center", ncols=4, fontsize=8, frameon=False)


def _saved(figure: "Figure", kind: str, metadata: dict[str, str | None]) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    return buffer.getvalue()
