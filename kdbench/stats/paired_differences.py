"""Paired differences of rows: values, intervals and p-values.

Rows are methods and the student trained alone. Runs of one seed share data order and initial
weights, so that two rows are compared seed by seed.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from kdbench.stats.over_seeds import ALPHA


@dataclass(frozen=True)
class Contrast:
    """The mean paired difference ``row - other`` in points; a value is nan where it is unknown.

    Attributes:
        row: label of the first row.
        other: label of the second row.
        pairs: number of pairs that both have common seeds on.
        n: number of common seeds, the fewest of a pair.
        diff: mean difference, over pairs the mean of the pairs' means.
        se: standard error of ``diff``.
        df: degrees of freedom of ``se``.
        low: lower end of the 95 % interval for this comparison alone.
        high: upper end of that interval.
        p: two-sided p-value for this comparison alone.
        p_adj: p-value after Bonferroni's adjustment for the comparisons of one row with all others.
        sd: standard deviation of these differences on one pair, with divisor n - 1.
    """

    row: str
    other: str
    pairs: int
    n: int
    diff: float
    se: float = math.nan
    df: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    p_adj: float = math.nan
    sd: float = math.nan

    @property
    def told(self) -> bool:
        """Whether the rows differ after allowing for all rows; False without an interval."""
        return self.p_adj < ALPHA

    @property
    def better(self) -> bool:
        """Whether ``row`` is better after allowing for all rows."""
        return self.told and self.diff > 0

    @property
    def worse(self) -> bool:
        """Whether ``row`` is worse after allowing for all rows."""
        return self.told and self.diff < 0

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return not math.isnan(self.se)

    def reversed(self) -> "Contrast":
        """Return ``other - row``."""
        return replace(
            self, row=self.other, other=self.row, diff=-self.diff, low=-self.high, high=-self.low
        )


class Contrasts(Mapping[tuple[str, str], Contrast]):
    """Contrasts by (row, other), in both orders; only of rows with a common seed."""

    def __init__(self, contrasts: Iterable[Contrast]) -> None:
        """Store each contrast once; the other order is made when it is asked for."""
        self._stored = {(c.row, c.other): c for c in contrasts}

    def __getitem__(self, key: tuple[str, str]) -> Contrast:
        if key in self._stored:
            return self._stored[key]
        return self._stored[key[1], key[0]].reversed()

    def __iter__(self) -> Iterator[tuple[str, str]]:
        yield from self._stored
        yield from ((other, row) for row, other in self._stored)

    def __len__(self) -> int:
        return 2 * len(self._stored)

    def once(self) -> Iterable[Contrast]:
        """Iterate over each two rows once, in the grid's order."""
        return self._stored.values()
