"""Tests over teacher-student pairs, and whether there are pairs enough for them to say anything.

Each pair counts as one observation, as each data set does in Demsar (JMLR 2006). Pairwise Wilcoxon
tests with Holm's adjustment, not Nemenyi's: its verdict on two methods depends on which others are
in the pool (Benavoli et al., JMLR 2016).
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
"""Pairs up to which scipy calculates a signed-rank test's p exactly; above, by a normal limit."""


def smallest_p(pairs: int) -> float:
    """The smallest two-sided p that a Wilcoxon signed-rank test on so many pairs can give."""
    return min(1.0, 2.0 / 2.0**pairs)


def pairs_needed(comparisons: int, alpha: float = over_seeds.ALPHA) -> int:
    """The pairs from which Holm's first of so many comparisons can be rejected."""
    return max(1, math.floor(math.log2(2 * comparisons / alpha)) + 1)


def refusal(pairs: int, comparisons: int, what: str) -> str:
    """Why there is no test over pairs, as a sentence; empty where pairs are enough.

    Args:
        what: the comparisons, e.g. ``each method with kd``.
    """
    needed = pairs_needed(comparisons) if comparisons else 0
    if pairs >= needed:
        return ""
    return (
        f"No test of {what} over pairs: a Wilcoxon signed-rank test on {counted(pairs, 'pair')} "
        f"cannot give a p below 2/2^{pairs} = {smallest_p(pairs):.2g}, and Holm's adjustment for "
        f"{counted(comparisons, 'comparison')} asks for less than "
        f"{over_seeds.ALPHA:g}/{comparisons} = {over_seeds.ALPHA / comparisons:.2g}. It takes "
        f"{needed} pairs."
    )


def friedman(pairs: Array) -> float:
    """p of Friedman's test that all methods are alike, with ties; nan below 3 methods or 2 pairs.

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
    """Two-sided p of the signed-rank test; nan without a difference that is not 0."""
    values = np.round(np.asarray(differences, dtype=float), DIGITS)
    if not values.any():
        return math.nan
    from scipy.stats import wilcoxon as signed_rank

    return float(signed_rank(values).pvalue)


def _wilcoxons(rows: Array) -> list[float]:
    """``wilcoxon`` of every row [N, P]."""
    # Up to so many pairs a tie in one row would change how all the others are calculated.
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
    """What a critical-difference diagram shows.

    Attributes:
        methods: best average rank first. ranks: those ranks.
        friedman: p of Friedman's test. p: Holm-adjusted, of methods [M, M] in this order.
        groups: (first, last) of methods that no test tells apart, as bars of the diagram.
    """

    methods: tuple[str, ...]
    ranks: tuple[float, ...]
    friedman: float
    p: Array
    groups: tuple[tuple[int, int], ...]


def critical_difference(methods: Sequence[str], pairs: Array) -> CriticalDifference:
    """Average ranks, and which methods the Wilcoxon-Holm tests of all with all do not tell apart.

    Args:
        pairs: mean accuracies [P, M]. Ask ``refusal`` first whether they are enough.
    """
    average = ranks(np.round(pairs, DIGITS)).mean(0)
    order = np.argsort(average, kind="stable")
    sorted_pairs = pairs[:, order]
    first, second = np.triu_indices(len(order), 1)
    # A row a comparison, and each row's numbers side by side, as where it stands alone.
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
    """The longest stretches of neighbours in rank of whom no two are told apart; none of one."""
    found: list[tuple[int, int]] = []
    for first in range(len(p)):
        last = first
        while last + 1 < len(p) and (p[first : last + 1, last + 1] >= over_seeds.ALPHA).all():
            last += 1
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return tuple(found)
