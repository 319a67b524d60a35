"""Choosing a swept value by its accuracy on held-out images, with standard errors.

Source: Breiman et al., Classification and Regression Trees, 1984 (the rule of one standard error).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdbench.stats.contrasts import over, pair
from kdbench.stats.over_pairs import DIGITS
from kdbench.stats.over_seeds import Accuracies


@dataclass(frozen=True)
class SweepChoice:
    """The best of the swept values, and the smallest that is about as good.

    Attributes:
        best: row with the highest mean; of equal means, the smaller value. None without results.
        simplest: row of the smallest value whose mean is within one standard error of the best; the
            best itself if there are no standard errors.
        mean: row -> mean accuracy over pairs in percent; rows that lack a pair are left out.
        se: row -> standard error of the paired difference to the best, in points; 0 for the best
            itself, nan if unknown.
        edge: "low" or "high" if the best is the smallest or the largest value, else "".
    """

    best: str | None
    simplest: str | None
    mean: Mapping[str, float]
    se: Mapping[str, float]
    edge: str


def choose(values: Mapping[str, float], scores: Sequence[Mapping[str, Accuracies]]) -> SweepChoice:
    """Choose among the rows of a sweep.

    Args:
        values: row -> swept value; smaller is simpler.
        scores: for each pair, row -> seed -> accuracy on held-out images in percent.
    """
    rows = sorted(
        (row for row in values if scores and all(one.get(row) for one in scores)),
        key=values.__getitem__,
    )
    if not rows:
        return SweepChoice(None, None, {}, {}, "")
    # A value that lacks a pair still shows, on the others, how much runs differ.
    compared = over({str(i): pair(one) for i, one in enumerate(scores)})
    means = {row: compared.means[row] for row in rows}
    best = max(rows, key=lambda row: round(means[row], DIGITS))  # rows are sorted by value
    se = {best: 0.0}
    for row in rows:
        if row != best:
            both = (row, best) in compared.contrasts
            se[row] = compared.contrasts[row, best].se if both else math.nan
    simplest = next(row for row in rows if row == best or means[row] >= means[best] - se[row])
    smallest, largest = min(values.values()), max(values.values())
    edge = ""
    if smallest != largest:
        edge = {smallest: "low", largest: "high"}.get(values[best], "")
    return SweepChoice(best, simplest, means, {row: se[row] for row in rows}, edge)
