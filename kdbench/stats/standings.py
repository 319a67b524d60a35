"""The place of each row among all: may it be the best, how far behind, and its range of ranks.

All follow from ``Contrast.told``, so that they cannot contradict each other.

Sources: Hsu, Ann. Stat. 12, 1984 (comparisons with the best); Mogstad et al., Rev. Econ. Stud. 91,
2024 (ranks).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
    others = {row: [other for other in rows if other != row] for row in rows}
    if not rows or any((row, other) not in contrasts for row in rows for other in others[row]):
        return None
    placed = {}
    to_others = {row: [contrasts[row, other] for other in others[row]] for row in rows}
    leading = {row for row in rows if not any(c.worse for c in to_others[row])}
    for row in rows:
        ends = [-c.low for c in to_others[row] if c.other in leading]
        unknown = any(math.isnan(end) for end in ends)
        placed[row] = Standing(
            row=row,
            rank_low=1 + sum(c.worse for c in to_others[row]),
            rank_high=len(rows) - sum(c.better for c in to_others[row]),
            leading=row in leading,
            behind=math.nan if unknown else max([0.0, *ends]),
        )
    return placed
