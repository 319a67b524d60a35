"""The range that holds the rank of each method over pairs, the highest mean on top."""

from typing import TYPE_CHECKING

from kdbench.report.plots import style
from kdbench.report.plots.style import CURVE, Sheet, capped, paper, plain
from kdbench.report.tables import marks
from kdbench.stats.decision import Decision

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@paper()
def rank_ranges(title: str, decision: Decision) -> "Figure":
    """Draw the range of each row's rank as a line, and the rank of its mean as a point.

    Args:
        title: of the figure.
        decision: its rows with a standing over pairs are drawn, with their marks.
    """
    import numpy as np

    from kdbench.stats.over_pairs import DIGITS, ranks

    standings = decision.over.standings or {}
    order = sorted(standings, key=lambda row: -decision.over.means[row])
    rows = order[: style.ROWS]
    marked = [marks.of_row(decision.recommendation, row) for row in rows]
    names = [marks.with_mark(plain(row), mark) for row, mark in zip(rows, marked, strict=True)]
    sheet = Sheet(
        across=1,
        size=(4.5, 0.22 * (max(len(rows), 2) + 0.4)),
        left=max(style.widest(names) + 0.2, 0.5),
        bottom=0.65,
    )
    figure, [axis] = sheet.draw(title + capped(len(rows), len(order), "methods"), [0], head=0.1)
    ends = np.array([[standings[row].rank_low, standings[row].rank_high] for row in rows], float)
    ends = ends.reshape(-1, 2)
    y = np.arange(len(rows))
    axis.hlines(
        y, 0, 1, transform=axis.get_yaxis_transform(), color="0.92", linewidth=0.8, zorder=0
    )
    axis.hlines(y, ends[:, 0], ends[:, 1], color=CURVE, linewidth=1.8, zorder=2)
    by_mean = ranks(np.round([decision.over.means[row] for row in order], DIGITS))[: len(rows)]
    axis.plot(by_mean, y, "o", color=CURVE, markersize=5, zorder=3)
    axis.set_yticks(y, names)
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(len(rows) - 0.3, -0.7)
    axis.set_xlim(0.5, len(order) + 0.5)
    axis.set_xlabel("rank (1 is best): of the mean, and the range that holds the true rank, 95 %")
    words = {marks.LEADING: "may be the best", marks.UNPLACED: "cannot be placed"}
    drawn = [f"{mark}: {text}" for mark, text in words.items() if mark in marked]
    figure.text(0.5, 0.1 / figure.get_figheight(), "    ".join(drawn), fontsize=7, ha="center")
    style.bare(axis, "bottom")
    return figure
