"""Records to figures: no window, no state, the same bytes for the same records."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdbench.report.plots.accuracy_against_cost import trade_off
from kdbench.report.plots.accuracy_per_seed import accuracy
from kdbench.report.plots.average_ranks import Ranks, average_ranks
from kdbench.report.plots.data_amount_and_noise import few_shot, label_noise
from kdbench.report.plots.heatmap import differences
from kdbench.report.plots.learning_curves import learning_curves
from kdbench.report.plots.sensitivity import sensitivity
from kdbench.report.plots.style import Plot, png, several, svg
from kdbench.runs.evidence import Evidence
from kdbench.stats.cell_summary import by_pair, row_label

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Picture",
    "Plot",
    "accuracy",
    "average_ranks",
    "differences",
    "few_shot",
    "figures",
    "files",
    "label_noise",
    "learning_curves",
    "picture",
    "pictures",
    "png",
    "sensitivity",
    "svg",
    "trade_off",
]  # fmt: skip

GetFrame = Callable[[], "pd.DataFrame"]
GetRanks = Callable[[], Ranks | None]


@dataclass(frozen=True)
class Picture:
    """A plot as its files hold it; ``name``, ``title`` and ``alt`` as ``Plot`` has them."""

    name: str
    title: str
    alt: str
    svg: bytes
    png: bytes


def files(pictures: Iterable[Picture]) -> dict[str, bytes]:
    """What a folder of results holds of them: name -> content."""
    out = {}
    for picture in pictures:
        out[f"plots/{picture.name}.svg"] = picture.svg
        out[f"plots/{picture.name}.png"] = picture.png
    return out


def pictures(evidence: Evidence, frame: GetFrame, ranks: GetRanks) -> list[Picture]:
    """Every figure that a grid has something to show in, drawn.

    Args:
        evidence: of the grid.
        frame: of ``tidy``, asked for when it is needed, which is not for the first figure.
        ranks: average ranks, asked for later still; None where nobody has worked them out.
    """
    return [picture(plot) for plot in _each(evidence, frame, ranks)]


def picture(plot: Plot) -> Picture:
    """A plot, drawn."""
    return Picture(plot.name, plot.title, plot.alt, svg(plot.figure), png(plot.figure))


def figures(evidence: Evidence, frame: "pd.DataFrame", ranks: Ranks | None = None) -> list[Plot]:
    """Every figure that a grid has something to show in, in a fixed order.

    Args:
        evidence: of the grid.
        frame: of ``tidy``.
        ranks: average rank of each method with its interval, where somebody has worked it out.
    """
    return list(_each(evidence, lambda: frame, lambda: ranks))


def _each(evidence: Evidence, get_frame: GetFrame, get_ranks: GetRanks) -> Iterator[Plot]:
    grid, cells = evidence.grid, evidence.cells
    baseline = row_label(cells, grid.report.baseline)
    methods = len({cell.method for cell in cells} - {"teacher"})
    what = f"{several(methods, 'method')} on {several(len(by_pair(cells)), 'pair')}"
    yield Plot(
        "accuracy",
        "Every seed",
        f"Test accuracy of every seed as a point and of their mean as a bar, {what}; lines "
        "where student alone and teacher are.",
        accuracy(grid.title, cells, evidence.records),
    )
    frame = get_frame()
    if baseline and frame["diff"].notna().any():
        yield Plot(
            "differences",
            "Difference to the baseline",
            f"Heat map of the mean difference to the baseline in points, {what}; bold where a "
            "test tells it from 0.",
            differences(f"{grid.title}: differences", frame, baseline),
        )
    if baseline and (frame["time_ratio"].notna() & frame["mean"].notna()).any():
        yield Plot(
            "cost",
            "Accuracy against cost",
            f"Mean test accuracy over training time relative to the baseline's, {what}; a line "
            "joins those that no other beats in accuracy for as little time.",
            trade_off(f"{grid.title}: accuracy against cost", frame, baseline),
        )
    if ranks := get_ranks():
        yield Plot(
            "ranks",
            "Average rank",
            f"Average rank over the pairs with its interval, "
            f"{several(len(ranks), 'method')}, the best on top.",
            average_ranks(f"{grid.title}: average rank", ranks),
        )
    yield from learning_curves(evidence)
    yield from sensitivity(evidence)
