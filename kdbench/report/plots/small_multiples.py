"""Small multiples: a panel for each method on each pair, with the baselines in grey."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from kdbench.report.plots import style
from kdbench.report.plots.style import (
    BASELINE,
    CURVE,
    DASHES,
    LINES,
    SEEDS,
    STUDENT,
    Sheet,
    paper,
    plain,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACROSS = 6
SHEETS = 2
"""The most figures of one kind; panels that do not fit are not drawn."""


@dataclass(frozen=True)
class PlotLine:
    """A mean over seeds along an axis; all sequences except ``points`` have one length.

    Attributes:
        x: positions.
        y: the mean at each position.
        low: lower edge of a band around the mean; empty for none.
        high: upper edge of that band.
        points: (x, accuracy) of single seeds.
    """

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    points: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Panel:
    """A method on a pair.

    Attributes:
        pair: label beside a row of panels.
        method: label above the panel.
        line: of the method.
        student: line of the student alone.
        baseline: line of the baseline.
        note: missing runs or special settings.
        log: whether the x axis is logarithmic.
        ticks: position -> label on the x axis; None: Matplotlib's choice.
    """

    pair: str
    method: str
    line: PlotLine | None = None
    student: PlotLine | None = None
    baseline: PlotLine | None = None
    note: str = ""
    log: bool = False
    ticks: dict[float, str] | None = None


@dataclass(frozen=True)
class Look:
    """Labels and style of all panels.

    Attributes:
        xlabel: of the x axis.
        ylabel: of the y axis.
        baseline: name of the baseline.
        band: label of the band in the legend.
        marked: whether each mean has a mark, for lines of few points.
    """

    xlabel: str
    ylabel: str
    baseline: str
    band: str = ""
    marked: bool = False


def fitting(pairs: Sequence[str], methods: int) -> list[str]:
    """Select the pairs whose panels fit on ``SHEETS``."""
    pairs_per_sheet = max(1, style.PANELS // max(methods, 1))
    return list(pairs)[: pairs_per_sheet * (SHEETS if len(pairs) <= style.PANELS else 1)]


def sheets(panels: Sequence[Panel]) -> list[list[Panel]]:
    """Put as many whole pairs on a sheet as fit into ``PANELS``; cut a pair that is too large."""
    out: list[list[Panel]] = []
    for _, group in groupby(panels, key=lambda panel: panel.pair):
        pair = list(group)[: style.PANELS]
        if out and len(out[-1]) + len(pair) <= style.PANELS:
            out[-1] += pair
        else:
            out.append(pair)
    return out


@paper()
def draw(title: str, panels: Sequence[Panel], look: Look) -> "Figure":
    """Draw one sheet: a block of panels for each pair, with one scale per pair."""
    pairs = {pair: list(group) for pair, group in groupby(panels, key=lambda panel: panel.pair)}
    across = min(ACROSS, max((len(group) for group in pairs.values()), default=1))
    slots: list[int] = []
    for group in pairs.values():
        start = -(-(slots[-1] + 1) // across) * across if slots else 0
        slots += range(start, start + len(group))
    # Leave room for ticks between a panel and the title below it.
    gap = 0.5 if any(panel.ticks for panel in panels) or len(pairs) > 1 else 0.36
    sheet = Sheet(across, size=(1.5, 1.1), left=0.95, gap=(0.12, gap), bottom=0.85, least=6.6)
    figure, axes = sheet.draw(title, slots)
    spans = [x for panel in panels if panel.line for x in panel.line.x]
    for slot, axis, panel in zip(slots, axes, panels, strict=True):
        group = pairs[panel.pair]
        limits = _limits(group, look)
        axis.set_ylim(*limits)
        _panel(axis, panel, look, limits)
        _axis(axis, panel, look, spans)
        below = slot + across
        lowest = below not in slots or panels[slots.index(below)].pair != panel.pair
        lowest |= panel.ticks is not None
        axis.tick_params(labelbottom=lowest, labelleft=slot % across == 0, labelsize=7)
        if panel is group[0]:
            sides = panel.pair.split(" → ", 1)
            axis.set_ylabel("\n→ ".join(plain(side, 15) for side in sides), fontsize=7.5)
    high = figure.get_figheight()
    figure.text(0.5, 0.4 / high, look.xlabel, ha="center", fontsize=8)
    left = axes[0].get_position().x0 - 0.82 / figure.get_figwidth()
    middle = (axes[0].get_position().y1 + axes[-1].get_position().y0) / 2
    figure.text(left, middle, look.ylabel, rotation=90, va="center")
    _legend(figure, panels, look)
    return figure


def _limits(panels: Sequence[Panel], look: Look) -> tuple[float, float]:
    values: list[float] = []
    for panel in panels:
        known = [line for line in (panel.line, panel.student, panel.baseline) if line]
        for line in known:
            # The first epochs of training would squeeze the part that matters.
            start = 0.0 if look.marked else max(line.x, default=0.0) / 2
            values += [y for x, y in zip(line.x, line.y, strict=True) if x >= start]
            values += [y for _, y in line.points]
    return style.window(values)


def _panel(axis: "Axes", panel: Panel, look: Look, limits: tuple[float, float]) -> None:
    axis.grid(color="0.93", linewidth=0.5)
    axis.set_axisbelow(True)
    style.bare(axis, "left", "bottom")
    axis.set_title(plain(panel.method, 26), fontsize=7.5 if len(panel.method) < 22 else 6.5, pad=3)
    for line, colour in ((panel.student, STUDENT), (panel.baseline, BASELINE)):
        if line:
            axis.plot(
                line.x, line.y, color=colour, linestyle=DASHES[colour], linewidth=1.1, zorder=2
            )
    line = panel.line
    if line:
        if line.low:
            axis.fill_between(
                line.x, line.low, line.high, color=CURVE, alpha=0.22, linewidth=0, zorder=1
            )
        if line.points:
            axis.plot(
                *zip(*line.points, strict=True), "o", color=SEEDS, alpha=0.55, markersize=3,
                markeredgewidth=0, zorder=3,
            )  # fmt: skip
        mark = "." if look.marked else ""
        axis.plot(line.x, line.y, mark + "-", color=CURVE, linewidth=1.3, markersize=4, zorder=4)
        _beyond(axis, line, look, limits)
    if panel.note:
        # At the side away from the end of the curve.
        low = line is not None and line.y[-1] < sum(limits) / 2
        axis.text(
            *(0.97, 0.96 if low else 0.04), plain(panel.note), transform=axis.transAxes,
            ha="right", va="top" if low else "bottom", fontsize=6.5, style="italic", color=LINES,
            zorder=6,
        )  # fmt: skip


def _beyond(axis: "Axes", line: PlotLine, look: Look, limits: tuple[float, float]) -> None:
    """Mark a mean beyond the edge by a triangle and a number; of a curve, only its last point."""
    means = list(zip(line.x, line.y, strict=True))
    for x, y in means if look.marked else means[-1:]:
        if limits[0] <= y <= limits[1] or math.isnan(y):
            continue
        edge = limits[0] if y < limits[0] else limits[1]
        axis.plot(
            x, edge, "v" if y < edge else "^", color=CURVE, markersize=4, zorder=5, clip_on=False
        )
        axis.annotate(
            f"{y:.1f}", (x, edge), (0, 4 if y < edge else -9), textcoords="offset points",
            ha="center", fontsize=5.5, zorder=6,
        )  # fmt: skip


def _axis(axis: "Axes", panel: Panel, look: Look, spans: Sequence[float]) -> None:
    """Set scale, limits and ticks: the panel's own if it has ticks, otherwise common to all."""
    axis.locator_params(axis="y", nbins=5)
    if panel.ticks:
        if panel.log:
            axis.set_xscale("log")
        low, high = min(panel.ticks), max(panel.ticks)
        room = 0.08 * (high - low) or 0.5
        edges = (low / 1.4, high * 1.4) if panel.log else (low - room, high + room)
        axis.set_xlim(*edges)
        axis.set_xticks(list(panel.ticks), [plain(text, 9) for text in panel.ticks.values()])
        axis.minorticks_off()
    elif spans:
        axis.set_xlim(0, max(spans) * 1.02)
        axis.locator_params(axis="x", nbins=4)
    else:
        axis.set_xticks([])


def _legend(figure: "Figure", panels: Sequence[Panel], look: Look) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries: list[Any] = [Line2D([], [], color=CURVE, linewidth=1.3, label="the panel's method")]
    if look.band:
        entries.append(Patch(color=CURVE, alpha=0.22, linewidth=0, label=look.band))
    if any(panel.line and panel.line.points for panel in panels):
        dot: dict[str, Any] = {"marker": "o", "linestyle": "", "markersize": 3.5}
        entries.append(Line2D([], [], color=SEEDS, label="one seed", **dot))
    for colour, name, drawn in (
        (BASELINE, plain(look.baseline, 18), any(panel.baseline for panel in panels)),
        (STUDENT, "student alone", any(panel.student for panel in panels)),
    ):
        if drawn:
            entries.append(
                Line2D([], [], color=colour, linestyle=DASHES[colour], linewidth=1.1, label=name)
            )
    figure.legend(
        handles=entries, loc="lower center", ncols=len(entries), fontsize=7.5, frameon=False
    )
