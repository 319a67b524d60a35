"""Paired differences of rows: values, intervals and p-values.

Rows are methods and the student trained alone. Runs of one seed share data order and initial
weights, so that two rows are compared seed by seed. Differences of every two rows are kept in
arrays, and become objects when they are asked for.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from kdbench.stats.over_seeds import ALPHA

Array = NDArray[np.float64]


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


@dataclass(frozen=True)
class Differences:
    """Paired differences of every two rows, row minus column; see ``Contrast``.

    Attributes:
        pairs: [M, M]; 0 without a common seed and on the diagonal.
        n: [M, M]; 0 without a common seed and on the diagonal.
        diff: [M, M], and so are all others; nan where a value is unknown.
        se: symmetric.
        df: symmetric.
        low: ends of the intervals; ``low`` is minus the transposed ``high``.
        high: the same.
        p: symmetric.
        p_adj: symmetric.
        sd: symmetric.
    """

    pairs: Array
    n: Array
    diff: Array
    se: Array
    df: Array
    low: Array
    high: Array
    p: Array
    p_adj: Array
    sd: Array

    @property
    def worse(self) -> NDArray[np.bool_]:
        """Whether the row is worse than the column after allowing for all rows [M, M]."""
        return (self.p_adj < ALPHA) & (self.diff < 0)


def with_tests(
    pairs: Array, n: Array, diff: Array, se: Array, df: Array, sd: Array, comparisons: int
) -> Differences:
    """Add intervals and p-values; a difference without a spread has none.

    Args:
        pairs: number of pairs [M, M].
        n: number of common seeds [M, M].
        diff: mean differences [M, M].
        se: their standard errors [M, M].
        df: degrees of freedom of ``se`` [M, M].
        sd: standard deviations on one pair [M, M].
        comparisons: number that p-values are adjusted for.
    """
    from scipy.special import stdtr, stdtrit

    with np.errstate(invalid="ignore", divide="ignore"):
        known = (n > 1) & (se > 0) & (df > 0)
        se, df = np.where(known, se, math.nan), np.where(known, df, math.nan)
        different, position = np.unique(df, return_inverse=True)
        half = stdtrit(different, 1 - ALPHA / 2)[position].reshape(df.shape) * se
        p = 2 * stdtr(df, -np.abs(diff / se))
    return Differences(
        pairs=pairs,
        n=n,
        diff=diff,
        se=se,
        df=df,
        low=diff - half,
        high=diff + half,
        p=p,
        p_adj=np.minimum(1.0, comparisons * p),
        sd=sd,
    )


class Contrasts(Mapping[tuple[str, str], Contrast]):
    """Contrasts by (row, other), in both orders; only of rows with a common seed."""

    def __init__(self, rows: Sequence[str], differences: Differences) -> None:
        """Name the rows of arrays."""
        self.rows = tuple(rows)
        self.differences = differences
        self._position = {row: i for i, row in enumerate(self.rows)}

    def __getitem__(self, key: tuple[str, str]) -> Contrast:
        row, other = key
        i, j = self._position[row], self._position[other]
        if not self.differences.n[i, j]:
            raise KeyError(key)
        values = {name: float(getattr(self.differences, name)[i, j]) for name in _VALUES}
        pairs, n = self.differences.pairs[i, j], self.differences.n[i, j]
        return Contrast(row, other, int(pairs), int(n), **values)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for i, j in np.argwhere(self.differences.n > 0).tolist():
            yield self.rows[i], self.rows[j]

    def __len__(self) -> int:
        return int((self.differences.n > 0).sum())

    def once(self) -> Iterator[Contrast]:
        """Iterate over each two rows once, in the grid's order."""
        for i, j in np.argwhere(np.triu(self.differences.n > 0)).tolist():
            yield self[self.rows[i], self.rows[j]]

    def with_interval(self) -> tuple[str, ...]:
        """Return the rows that have an interval to some other row."""
        known = np.argwhere(~np.isnan(self.differences.se))
        return tuple(self.rows[i] for i in np.unique(known[:, 0]).tolist())


_VALUES = tuple(field.name for field in fields(Differences) if field.name not in ("pairs", "n"))
