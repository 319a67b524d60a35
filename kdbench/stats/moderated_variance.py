"""Variances of paired differences on one teacher-student pair, moderated by those of all rows.

With three seeds a difference's own variance has two degrees of freedom, and says little. The
variances of all differences on the pair say what is typical; each is averaged with that.

Sources: Smyth, Stat. Appl. Genet. Mol. Biol. 3(1), 2004 (prior and moderated t test); Phipson et
al., Ann. Appl. Stat. 10, 2016 (rows of unusual variance); Grubbs, JASA 43, 1948 (variance of one
row from the variances of differences).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LEAST_VARIANCES = 3
"""Fewest variances that a prior is estimated from."""
NOISY = 0.05
"""A row is noisy if its variance would be this improbable among the others."""
EXCLUDED = 0.01
"""A row as improbable as this is left out of what is typical."""
SMALLEST = 1e-5
"""Smallest variance in the prior, as a share of the median."""


@dataclass(frozen=True)
class Variances:
    """Variances of the paired differences of all rows of a pair, in squared points.

    Attributes:
        own: variance of each two rows' differences [M, M]; nan with fewer than two common seeds.
        moderated: weighted mean of ``own`` and ``typical`` [M, M]; ``own`` for a noisy row.
        freedom: degrees of freedom of ``moderated`` [M, M].
        d0: degrees of freedom that are borrowed; 0: none.
        s0_sq: the prior's variance; nan without a variance.
        typical: the variance that is borrowed; nan without a variance.
        noisy: whether a row lends and borrows nothing [M].
    """

    own: Array
    moderated: Array
    freedom: Array
    d0: float
    s0_sq: float
    typical: float
    noisy: NDArray[np.bool_]


def moderate(own: Array, common: Array, cap: float) -> Variances:
    """Moderate the variances of all paired differences.

    Args:
        own: variance of each two rows' differences [M, M], symmetric; nan where it is unknown.
        common: number of common seeds [M, M]; on the diagonal those of the row.
        cap: most degrees of freedom that may be borrowed.
    """
    m = len(own)
    above = np.triu(~np.isnan(own), 1)
    d0, s0_sq = prior(own[above], common[above] - 1, cap)
    tail = np.ones(m)
    if m > 2 and d0 > 0:
        tail = _improbability(own, np.diagonal(common) - 1, d0, s0_sq)
    noisy, usual = tail < NOISY, tail >= EXCLUDED
    lending = own[above & usual[:, None] & usual[None, :]]
    typical = max(s0_sq, float(lending.mean())) if d0 and lending.size else s0_sq
    alone = noisy[:, None] | noisy[None, :]
    borrowed = np.where(alone, 0.0, d0)
    freedom = borrowed + common - 1
    with np.errstate(invalid="ignore", divide="ignore"):
        weighted = (borrowed * (typical if d0 else 0.0) + (common - 1) * own) / freedom
    return Variances(own, weighted, freedom, d0, s0_sq, typical, noisy)


def prior(variances: Array, freedom: Array, cap: float) -> tuple[float, float]:
    """Estimate the distribution of true variances: its degrees of freedom and its variance.

    Args:
        variances: of the differences [K].
        freedom: degrees of freedom of each [K].
        cap: largest number of degrees of freedom returned.

    Returns:
        ``d0`` and ``s0_sq``; (0, nan) with fewer than three variances, or if half of them are 0.

    Source: Smyth, 2004, section 6.2.
    """
    middle = float(np.median(variances)) if len(variances) >= LEAST_VARIANCES else 0.0
    if middle == 0:
        return 0.0, math.nan
    from scipy.special import digamma, polygamma

    v = np.maximum(variances, SMALLEST * middle)
    e = np.log(v) - digamma(freedom / 2) + np.log(freedom / 2)
    excess = float(e.var(ddof=1) - polygamma(1, freedom / 2).mean())
    if excess <= 0:
        d0, s0_sq = math.inf, float(v.mean())
    else:
        d0 = 2 * inverse_trigamma(excess)
        s0_sq = math.exp(float(e.mean()) + float(digamma(d0 / 2)) - math.log(d0 / 2))
    return max(0.0, min(d0, cap)), s0_sq


def inverse_trigamma(x: float) -> float:
    """Return y with trigamma(y) = x > 0.

    Source: Smyth, 2004, appendix.
    """
    from scipy.special import polygamma

    if x > 1e7:
        return x**-0.5
    if x < 1e-6:
        return 1 / x
    y = 0.5 + 1 / x
    for _ in range(50):
        trigamma = float(polygamma(1, y))
        step = trigamma * (1 - trigamma / x) / float(polygamma(2, y))
        y += step
        if abs(step) < 1e-15 * y:
            break
    return y


def _improbability(own: Array, freedom: Any, d0: float, s0_sq: float) -> Array:
    """Return for each row the probability that its variance would be as large by chance [M]."""
    from scipy.special import fdtrc

    m = len(own)
    known = ~np.isnan(own) & ~np.eye(m, dtype=bool)
    count = known.sum(1)
    sums = np.where(known, own, 0.0).sum(1)
    # A missing variance of a row counts as the mean of those that the row has.
    with np.errstate(invalid="ignore", divide="ignore"):
        sums = sums / count * (m - 1)
    sums = np.where(count > 0, sums, math.nan)
    total = np.nansum(sums) / 2
    row = (sums - total / (m - 1)) / (m - 2)
    ratio = np.maximum(row, 0.0) / (s0_sq / 2)
    tail = np.array([float(fdtrc(f, d0, x)) for f, x in zip(freedom, ratio, strict=True)])
    return np.where(np.isnan(tail), 1.0, tail)
