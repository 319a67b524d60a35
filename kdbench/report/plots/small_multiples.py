"""Small multiples: a panel for each method on each pair, the baselines grey in all of them."""

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
"""Figures of one kind; what does not fit is not drawn."""


@dataclass(frozen=True)
class PlotLine:
    """A mean over seeds along an axis; all sequences but ``points`` are of one length.

    Attributes:
        x, y: the mean.
        low, high: the band around it; empty for none.
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
        pair, method: what stands beside a row of panels and above a panel.
        line: the method's own. student, baseline: what it is compared with.
        note: what is missing, what is special.
        log: whether x is. ticks: where x has ticks and what they say; None: matplotlib's choice.
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
    """What all panels share.

    Attributes:
        xlabel, ylabel: of the axes.
        baseline: the name of what is compared with.
        band: what the band is, for the legend.
        marked: whether each mean has a mark: there are few.
    """

    xlabel: str
    ylabel: str
    baseline: str
    band: str = ""
    marked: bool = False


def fitting(pairs: Sequence[str], methods: int) -> list[str]:
    """The pairs whose panels fit on ``SHEETS``."""
    a_sheet = max(1, style.PANELS // max(methods, 1))
    return list(pairs)[: a_sheet * (SHEETS if len(pairs) <= style.PANELS else 1)]


def sheets(panels: Sequence[Panel]) -> list[list[Panel]]:
    """As many whole pairs on a sheet as fit into ``PANELS``; a pair too large is cut."""
    out: list[list[Panel]] = []
    for _, group in groupby(panels, key=lambda panel: panel.pair):
        one = list(group)[: style.PANELS]
        if out and len(out[-1]) + len(one) <= style.PANELS:
            out[-1] += one
        else:
            out.append(one)
    return out


@paper()
def draw(title: str, panels: Sequence[Panel], look: Look) -> "Figure":
    """One sheet: a block of panels for each pair, all of a pair on one scale."""
    pairs = {pair: list(group) for pair, group in groupby(panels, key=lambda panel: panel.pair)}
    across = min(ACROSS, max((len(group) for group in pairs.values()), default=1))
    slots: list[int] = []
    for group in pairs.values():
        start = -(-(slots[-1] + 1) // across) * across if slots else 0
        slots += range(start, start + len(group))
    # Between a panel and the next one's title there may be ticks.
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
            # The first epochs of training would squeeze all that can be compared.
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
        # Where the curve does not end.
        low = line is not None and line.y[-1] < sum(limits) / 2
        axis.text(
            *(0.97, 0.96 if low else 0.04), plain(panel.note), transform=axis.transAxes,
            ha="right", va="top" if low else "bottom", fontsize=6.5, style="italic", color=LINES,
            zorder=6,
        )  # fmt: skip


def _beyond(axis: "Axes", line: PlotLine, look: Look, limits: tuple[float, float]) -> None:
    """A triangle and a number at the edge for a mean that lies beyond it; of a curve, its end."""
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
    """Scale, limits and ticks: a panel's own where it has ticks, else one for all."""
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
    for colour, name, there in (
        (BASELINE, plain(look.baseline, 18), any(panel.baseline for panel in panels)),
        (STUDENT, "student alone", any(panel.student for panel in panels)),
    ):
        if there:
            entries.append(
                Line2D([], [], color=colour, linestyle=DASHES[colour], linewidth=1.1, label=name)
            )
    figure.legend(
        handles=entries, loc="lower center", ncols=len(entries), fontsize=7.5, frameon=False
    )
