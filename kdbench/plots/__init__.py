"""Records to figures: no window, no state, the same bytes for the same records."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kdbench.evidence import Evidence
from kdbench.plots.cost import trade_off
from kdbench.plots.curves import learning_curves
from kdbench.plots.heatmap import differences
from kdbench.plots.ranks import Ranks, average_ranks
from kdbench.plots.seeds import accuracy
from kdbench.plots.sensitivity import sensitivity
from kdbench.plots.series import few_shot, label_noise
from kdbench.plots.style import Plot, png, several, svg
from kdbench.tidy import find

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Plot",
    "accuracy",
    "average_ranks",
    "differences",
    "few_shot",
    "figures",
    "files",
    "label_noise",
    "learning_curves",
    "png",
    "sensitivity",
    "svg",
    "trade_off",
]  # fmt: skip


def files(plots: Sequence[Plot]) -> dict[str, bytes]:
    """What a folder of results holds of them: ``plots/NAME.svg`` and ``plots/NAME.png``."""
    out = {}
    for plot in plots:
        out[f"plots/{plot.name}.svg"] = svg(plot.figure)
        out[f"plots/{plot.name}.png"] = png(plot.figure)
    return out


def figures(
    evidence: Evidence, frame: "pd.DataFrame", ranks: Ranks | None = None
) -> Sequence[Plot]:
    """Every figure that a grid has something to show in, in a fixed order.

    Args:
        evidence: of the grid.
        frame: of ``tidy``.
        ranks: average rank of each method with its interval, where somebody has worked it out.
    """
    grid = evidence.grid
    baseline = find(evidence.cells, grid.report.baseline)
    pairs, methods = frame["pair"].nunique(), len(set(frame["method"]) - {"teacher"})
    what = f"{several(methods, 'method')} on {several(pairs, 'pair')}"
    out = [
        Plot(
            "accuracy",
            "Every seed",
            f"Test accuracy of every seed as a point and of their mean as a bar, {what}; lines "
            "where student alone and teacher are.",
            accuracy(grid.title, evidence.cells, evidence.records),
        )
    ]
    if baseline and frame["diff"].notna().any():
        out.append(
            Plot(
                "differences",
                "Difference to the baseline",
                f"Heat map of the mean difference to the baseline in points, {what}; bold where a "
                "test tells it from 0.",
                differences(f"{grid.title}: differences", frame, baseline),
            )
        )
    if baseline and (frame["time_ratio"].notna() & frame["mean"].notna()).any():
        out.append(
            Plot(
                "cost",
                "Accuracy against cost",
                f"Mean test accuracy over training time relative to the baseline's, {what}; a line "
                "joins those that no other beats in accuracy for as little time.",
                trade_off(f"{grid.title}: accuracy against cost", frame, baseline),
            )
        )
    if ranks:
        out.append(
            Plot(
                "ranks",
                "Average rank",
                f"Average rank over the pairs with its interval, "
                f"{several(len(ranks), 'method')}, the best on top.",
                average_ranks(f"{grid.title}: average rank", ranks),
            )
        )
    return [*out, *learning_curves(evidence), *sensitivity(evidence)]
