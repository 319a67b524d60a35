"""All figures of a report: without a window or state, the same bytes for the same records."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdbench.report.plots.accuracy_against_cost import trade_off
from kdbench.report.plots.accuracy_per_seed import accuracy
from kdbench.report.plots.data_amount_and_noise import few_shot, label_noise
from kdbench.report.plots.heatmap import differences
from kdbench.report.plots.learning_curves import learning_curves
from kdbench.report.plots.rank_ranges import rank_ranges
from kdbench.report.plots.sensitivity import sensitivity
from kdbench.report.plots.style import Plot, png, svg
from kdbench.runs.evidence import Evidence
from kdbench.stats.aggregate import Aggregate
from kdbench.stats.cell_summary import by_pair
from kdbench.stats.decision import Decision
from kdbench.stats.headline import headline
from kdbench.wording import counted

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Picture",
    "Plot",
    "accuracy",
    "differences",
    "every_seed",
    "few_shot",
    "figures",
    "files",
    "label_noise",
    "learning_curves",
    "others",
    "picture",
    "pictures",
    "png",
    "rank_ranges",
    "sensitivity",
    "svg",
    "trade_off",
]  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """A plot's files; ``name``, ``title`` and ``alt`` are those of its ``Plot``."""

    name: str
    title: str
    alt: str
    svg: bytes
    png: bytes


def files(pictures: Iterable[Picture]) -> dict[str, bytes]:
    """Return the files of pictures in a folder of results: name -> content."""
    out = {}
    for picture in pictures:
        out[f"plots/{picture.name}.svg"] = picture.svg
        out[f"plots/{picture.name}.png"] = picture.png
    return out


def pictures(aggregate: Aggregate) -> list[Picture]:
    """Draw every figure for which the grid has data."""
    return [picture(plot) for plot in figures(aggregate)]


def picture(plot: Plot) -> Picture:
    """Write a plot's files."""
    return Picture(plot.name, plot.title, plot.alt, svg(plot.figure), png(plot.figure))


def figures(aggregate: Aggregate) -> Iterator[Plot]:
    """Draw every figure for which the grid has data, in a fixed order."""
    yield every_seed(aggregate.evidence)
    yield from others(aggregate.evidence, aggregate.frame, aggregate.decision)


def every_seed(evidence: Evidence) -> Plot:
    """Draw the first figure, the only one that needs no statistics."""
    shown = headline(evidence.grid)
    return Plot(
        "accuracy",
        "Every seed",
        f"{shown.name.capitalize()} of every seed as a point and of their mean as a bar, "
        f"{_size(evidence)}; lines for the student alone and the teacher.",
        accuracy(evidence.grid.title, evidence.cells, evidence.records, shown),
    )


def others(evidence: Evidence, frame: "pd.DataFrame", decision: Decision) -> Iterator[Plot]:
    """Draw all figures but the first.

    Args:
        evidence: of the grid.
        frame: ``Aggregate.frame``.
        decision: ``Aggregate.decision``.
    """
    grid, baseline, what = evidence.grid, decision.baseline, _size(evidence)
    shown = headline(grid)
    if baseline and frame["diff"].notna().any():
        yield Plot(
            "differences",
            "Difference to the baseline",
            f"Heat map of the mean difference to the baseline in percentage points, {what}; "
            "bold where a method is better or worse after allowing for all rows.",
            differences(f"{grid.title}: differences", frame, baseline),
        )
    if baseline and (frame["time_ratio"].notna() & frame["mean"].notna()).any():
        yield Plot(
            "cost",
            "Accuracy against cost",
            f"Mean {shown.name} over training time relative to the baseline's, {what}; a line "
            "joins the Pareto front.",
            trade_off(f"{grid.title}: accuracy against cost", frame, decision, shown),
        )
    if decision.over.standings and not shown.held_out:
        yield Plot(
            "ranks",
            "Range of each rank",
            "Rank of each row by its mean over pairs, and the range that holds its true rank with "
            f"95 %, {counted(len(decision.over.standings), 'row')}, the highest mean on top.",
            rank_ranges(f"{grid.title}: ranks", decision),
        )
    yield from learning_curves(evidence)
    yield from sensitivity(evidence)


def _size(evidence: Evidence) -> str:
    methods = len({cell.method for cell in evidence.cells} - {"teacher"})
    return f"{counted(methods, 'method')} on {counted(len(by_pair(evidence.cells)), 'pair')}"
