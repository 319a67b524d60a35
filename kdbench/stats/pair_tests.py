"""Tests over teacher-student pairs, and the number of pairs they need.

Each pair is one observation, as each data set is in Demsar (JMLR 2006). Methods are compared by
Wilcoxon tests with Holm's adjustment rather than by Nemenyi's test, whose result for two methods
depends on the other methods in the pool (Benavoli et al., JMLR 2016).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kdbench.stats import over_seeds
from kdbench.stats.bootstrap import Array
from kdbench.stats.over_pairs import DIGITS, ranks
from kdbench.wording import counted

EXACT = 50
"""Largest number of pairs with an exact p-value in scipy; above, it uses a normal approximation."""


def smallest_p(pairs: int) -> float:
    """Return the smallest two-sided p-value of a Wilcoxon signed-rank test on this many pairs."""
    return min(1.0, 2.0 / 2.0**pairs)


def pairs_needed(comparisons: int, alpha: float = over_seeds.ALPHA) -> int:
    """Return the number of pairs needed to reject the first of this many comparisons after Holm."""
    return max(1, math.floor(math.log2(2 * comparisons / alpha)) + 1)


def refusal(pairs: int, comparisons: int, what: str) -> str:
    """Explain in a sentence why there is no test over pairs; empty if there are enough pairs.

    Args:
        pairs: number of pairs.
        comparisons: number of comparisons.
        what: the comparisons in words, e.g. ``each method with kd``.
    """
    needed = pairs_needed(comparisons) if comparisons else 0
    if pairs >= needed:
        return ""
    return (
        f"No test of {what} over pairs: a Wilcoxon signed-rank test on {counted(pairs, 'pair')} "
        f"cannot give a p-value below 2/2^{pairs} = {smallest_p(pairs):.2g}, and Holm's adjustment "
        f"for {counted(comparisons, 'comparison')} requires one below "
        f"{over_seeds.ALPHA:g}/{comparisons} = {over_seeds.ALPHA / comparisons:.2g}. At least "
        f"{needed} pairs are needed."
    )


def friedman(pairs: Array) -> float:
    """Return the p-value of Friedman's test with ties, that all methods are alike.

    It is nan for fewer than 3 methods or 2 pairs.

    Args:
        pairs: mean accuracies [P, M].
    """
    n, k = pairs.shape
    if n < 2 or k < 3:
        return math.nan
    rounded = np.round(pairs, DIGITS)
    by_pair = ranks(rounded)
    spread = (by_pair**2).sum() - n * k * (k + 1) ** 2 / 4
    if spread <= 0:
        return math.nan
    between = ((by_pair.sum(0) - n * (k + 1) / 2) ** 2).sum()
    from scipy.special import chdtrc

    return float(chdtrc(k - 1, (k - 1) * between / spread))


def wilcoxon(differences: Sequence[float] | Array) -> float:
    """Return the two-sided p-value of the signed-rank test; nan if all differences are 0."""
    values = np.round(np.asarray(differences, dtype=float), DIGITS)
    if not values.any():
        return math.nan
    from scipy.stats import wilcoxon as signed_rank

    return float(signed_rank(values).pvalue)


def _wilcoxons(rows: Array) -> list[float]:
    """Return ``wilcoxon`` of every row [N, P]."""
    # With so few pairs, a tie in one row would change the calculation for all other rows.
    if rows.shape[1] <= EXACT:
        return [wilcoxon(row) for row in rows]
    values = np.round(rows, DIGITS)
    p = np.full(len(values), math.nan)
    differing = values.any(axis=1)
    if differing.any():
        from scipy.stats import wilcoxon as signed_rank

        p[differing] = signed_rank(values[differing], axis=1).pvalue
    return [float(value) for value in p]


@dataclass(frozen=True)
class CriticalDifference:
    """The contents of a critical-difference diagram.

    Attributes:
        methods: sorted by average rank, best first.
        ranks: average ranks of ``methods``.
        friedman: p-value of Friedman's test.
        p: Holm-adjusted p-values between ``methods`` [M, M].
        groups: (first, last) index of methods without a significant difference, the diagram's bars.
    """

    methods: tuple[str, ...]
    ranks: tuple[float, ...]
    friedman: float
    p: Array
    groups: tuple[tuple[int, int], ...]


def critical_difference(methods: Sequence[str], pairs: Array) -> CriticalDifference:
    """Compute average ranks and Holm-adjusted Wilcoxon tests between all methods.

    Args:
        methods: names of the methods.
        pairs: mean accuracies [P, M]; check with ``refusal`` first that there are enough pairs.
    """
    average = ranks(np.round(pairs, DIGITS)).mean(0)
    order = np.argsort(average, kind="stable")
    sorted_pairs = pairs[:, order]
    first, second = np.triu_indices(len(order), 1)
    # One contiguous row per comparison, so that each is calculated as it would be alone.
    rows = np.ascontiguousarray((sorted_pairs[:, first] - sorted_pairs[:, second]).T)
    adjusted = over_seeds.holm(_wilcoxons(rows))
    p = np.ones((len(order), len(order)))
    for i, j, value in zip(first, second, adjusted, strict=True):
        p[i, j] = p[j, i] = 1.0 if math.isnan(value) else value
    return CriticalDifference(
        methods=tuple(methods[i] for i in order),
        ranks=tuple(float(average[i]) for i in order),
        friedman=friedman(pairs),
        p=p,
        groups=_groups(p),
    )


def _groups(p: Array) -> tuple[tuple[int, int], ...]:
    """Return the longest runs of two or more adjacent ranks without a significant difference."""
    groups: list[tuple[int, int]] = []
    for first in range(len(p)):
        last = first
        while last + 1 < len(p) and (p[first : last + 1, last + 1] >= over_seeds.ALPHA).all():
            last += 1
        if last > first and (not groups or last > groups[-1][1]):
            groups.append((first, last))
    return tuple(groups)
