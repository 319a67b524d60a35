"""The place of each row among all: may it be the best, how far behind, and its range of ranks.

All follow from ``Contrast.told``, so that they cannot contradict each other.

Sources: Hsu, Ann. Stat. 12, 1984 (comparisons with the best); Mogstad et al., Rev. Econ. Stud. 91,
2024 (ranks).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kdbench.stats.paired_differences import Contrasts


@dataclass(frozen=True)
class Standing:
    """A row among all rows.

    Attributes:
        row: label.
        rank_low: best rank that the row may have.
        rank_high: worst rank that the row may have; with 95 % its true rank is in this range.
        leading: whether no row is better than it, so that it may be the best.
        behind: with 95 %, at most so many points below the best; nan if that is unknown.
    """

    row: str
    rank_low: int
    rank_high: int
    leading: bool
    behind: float


def standings(rows: Sequence[str], contrasts: Contrasts) -> Mapping[str, Standing] | None:
    """Place rows by the contrasts of each two of them; None if a contrast is missing."""
    at = [contrasts.rows.index(row) for row in rows]
    chosen = np.ix_(at, at)
    differences = contrasts.differences
    others = ~np.eye(len(at), dtype=bool)
    if not at or (differences.n[chosen] == 0)[others].any():
        return None
    worse, ends = differences.worse[chosen], -differences.low[chosen]
    leading = worse.sum(axis=1) == 0
    placed = {}
    for i, row in enumerate(rows):
        # An unknown end, nan, makes the maximum unknown.
        behind = float(np.max(ends[i, leading & others[i]], initial=0.0))
        placed[row] = Standing(
            row=row,
            rank_low=1 + int(worse[i].sum()),
            rank_high=len(rows) - int(worse[:, i].sum()),
            leading=bool(leading[i]),
            behind=behind,
        )
    return placed
