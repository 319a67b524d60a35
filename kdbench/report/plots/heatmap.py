"""Heat map of every method's difference to the baseline: a row per method, a column per pair."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from kdbench.report.numbers import signed
from kdbench.report.plots import style
from kdbench.report.plots.style import PAPER, capped, paper, plain
from kdbench.report.tables.marks import BETTER, WORSE
from kdbench.stats.over_seeds import ALPHA

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

SHOWN = ("method", "pair", "status", "diff", "diff_n", "p_adj")
DIFFERENT, OTHER = "#000000", "#4A4A4A"
"""Text colours."""


def colours() -> "Colormap":
    """Make a colour map from orange to purple, light enough for black and grey text."""
    import matplotlib
    import numpy as np
    from matplotlib.colors import LinearSegmentedColormap

    light = matplotlib.colormaps["PuOr"](np.linspace(0.33, 0.67, 65))
    return LinearSegmentedColormap.from_list("differences", light)


@paper()
def differences(title: str, frame: "pd.DataFrame", baseline: str) -> "Figure":
    """Draw ``diff`` of every method and pair, with the number in each cell.

    Bold and black, with ▲ or ▼: better or worse than the baseline after allowing for all rows of
    the pair. Grey: all others, e.g. with one seed.
    Hatched: no result, with the reason. The colours end at the 90 % quantile of the differences'
    sizes, so that one failed method does not make the others pale.

    Args:
        title: of the figure.
        frame: ``Aggregate.frame``.
        baseline: label of the baseline.
    """
    import numpy as np

    rows = frame[~frame["method"].isin(["teacher", baseline])]
    every, pairs = list(dict.fromkeys(rows["method"])), list(dict.fromkeys(rows["pair"]))
    methods = every[: style.ROWS]
    shown = style.first(pairs, len(methods))
    selected = rows.loc[rows["pair"].isin(shown) & rows["method"].isin(methods), list(SHOWN)]
    named: Iterable[Any] = selected.itertuples(index=False)
    by_cell = {(row.method, row.pair): row for row in named}
    cells = [[by_cell.get((method, pair)) for pair in shown] for method in methods]
    values = np.array([[_difference(cell) for cell in line] for line in cells], float)
    sizes = np.abs(values[np.isfinite(values)])
    limit = max(float(np.quantile(sizes, 0.9)), 0.5) if sizes.size else 1.0

    names = ["\n→ ".join(plain(part, 16) for part in pair.split(" → ", 1)) for pair in shown]
    column = max(0.75, style.widest([line for name in names for line in name.split("\n")]) + 0.1)
    sheet = style.Sheet(
        across=1,
        size=(column * max(len(shown), 1), 0.24 * max(len(methods), 2)),
        left=max(style.widest([plain(method) for method in methods]) + 0.2, 0.5),
        right=0.3,
        bottom=1.07,
        gap=(0.2, 0.7),
    )
    title += capped(len(shown), len(pairs), "pairs") + capped(len(methods), len(every), "methods")
    figure, [axis] = sheet.draw(title, [0], head=0.45)
    mesh = axis.pcolormesh(
        np.ma.masked_invalid(values), cmap=colours(), vmin=-limit, vmax=limit, edgecolors="white",
        linewidth=1,
    )  # fmt: skip
    for y, line in enumerate(cells):
        for x, cell in enumerate(line):
            _cell(axis, x, y, cell)
    axis.set_xticks([x + 0.5 for x in range(len(shown))], names)
    axis.set_yticks([y + 0.5 for y in range(len(methods))], [plain(m) for m in methods])
    axis.set_ylim(max(len(methods), 1), 0)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    style.bare(axis)
    _legend(figure, mesh, baseline)
    return figure


def _difference(row: Any) -> float:
    return float(row.diff) if row is not None and row.diff_n else math.nan


def _cell(axis: "Axes", x: int, y: int, row: Any) -> None:
    from matplotlib.patches import Rectangle

    middle: dict[str, Any] = {"ha": "center", "va": "center_baseline", "zorder": 3}
    if math.isnan(_difference(row)):
        hatched = Rectangle(
            (x, y), 1, 1, facecolor="white", edgecolor="0.65", hatch="////", linewidth=0, zorder=2
        )
        axis.add_patch(hatched)
        word = "not in grid" if row is None else str(row.status)
        # A cell with results and no difference has no seed in common with the baseline.
        word = "no common seed" if word in ("done", "partial") else word
        axis.text(x + 0.5, y + 0.5, word, fontsize=6.5, style="italic", bbox=PAPER, **middle)
        return
    told = row.p_adj < ALPHA
    mark = (f" {BETTER}" if row.diff > 0 else f" {WORSE}") if told else ""
    axis.text(
        *(x + 0.5, y + 0.5), signed(row.diff) + mark,
        color=DIFFERENT if told else OTHER, weight="bold" if told else "normal", **middle,
    )  # fmt: skip


def _legend(figure: "Figure", mesh: Any, baseline: str) -> None:
    wide, high = figure.get_size_inches()
    scale = figure.add_axes(((wide - 2.4) / 2 / wide, 0.8 / high, 2.4 / wide, 0.09 / high))
    bar = figure.colorbar(mesh, cax=scale, orientation="horizontal", extend="both")
    bar.outline.set_visible(False)
    scale.tick_params(labelsize=7)
    scale.locator_params(axis="x", nbins=6)
    scale.set_xlabel(f"difference to {plain(baseline)}, percentage points", fontsize=8, labelpad=1)
    figure.text(
        *(0.5, 0.08 / high),
        f"{BETTER}{WORSE}: better or worse, allowing for all rows (5 %)\n"
        "grey: not shown to differ    hatched: no result",
        fontsize=7, ha="center",
    )  # fmt: skip
