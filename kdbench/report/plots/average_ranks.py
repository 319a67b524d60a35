"""Average rank of every method with its interval, the best on top."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kdbench.report.plots import style
from kdbench.report.plots.style import CURVE, Sheet, capped, paper, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Ranks = Mapping[str, tuple[float, float, float]]
"""Method -> average rank over the pairs, low and high end of its interval; 1 is best."""


@paper()
def average_ranks(title: str, ranks: Ranks, level: str = "95 %") -> "Figure":
    """Draw a point and an interval for each method, sorted by rank.

    Args:
        title: of the figure.
        ranks: intervals with a nan end are not drawn; methods without a rank come last.
        level: of the intervals, for the axis.
    """
    import math

    import numpy as np

    # nan has no order, so it is sorted separately.
    order = sorted(ranks, key=lambda m: (math.isnan(ranks[m][0]), ranks[m][0]))
    methods = order[: style.ROWS]
    sheet = Sheet(
        across=1,
        size=(4.5, 0.22 * (max(len(methods), 2) + 0.4)),
        left=max(style.widest([plain(method) for method in methods]) + 0.2, 0.5),
        bottom=0.5,
    )
    figure, [axis] = sheet.draw(title + capped(len(methods), len(order), "methods"), [0], head=0.1)
    table = np.array([ranks[method] for method in methods], float).reshape(-1, 3)
    y = np.arange(len(methods))
    known = np.isfinite(table[:, 0])
    complete = known & np.isfinite(table[:, 1:]).all(axis=1)
    axis.hlines(
        y, 0, 1, transform=axis.get_yaxis_transform(), color="0.92", linewidth=0.8, zorder=0
    )
    axis.hlines(
        y[complete], table[complete, 1], table[complete, 2], color=CURVE, linewidth=1.8, zorder=2
    )
    axis.plot(table[known, 0], y[known], "o", color=CURVE, markersize=5, zorder=3)
    for row in y[~known]:
        axis.text(
            *(0.01, row), "no rank", transform=axis.get_yaxis_transform(), va="center",
            fontsize=7, style="italic", bbox=style.PAPER,
        )  # fmt: skip
    axis.set_yticks(y, [plain(method) for method in methods])
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(len(methods) - 0.3, -0.7)
    axis.set_xlabel(f"average rank (1 is best), with {level} interval")
    if not known.any():
        axis.set_xticks([])
    style.bare(axis, "bottom")
    return figure
