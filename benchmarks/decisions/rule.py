"""kdbench's rule on many simulated grids at once.

It computes what ``kdbench.stats.contrasts`` does, for grids without missing runs, with arrays
instead of loops. A test compares the two.

Arrays are [G, P, M, N] (grids, pairs, rows, seeds) and [G, P, K] or [G, K] of the K = M(M - 1)/2
differences row - other, in the order of ``order``.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import digamma, fdtrc, polygamma

from benchmarks.decisions.scenarios import Array

TINY = 1e-9
"""A standard deviation below is rounding."""
NOISY, OUTLIER = 0.05, 0.01


class Differences(NamedTuple):
    """The paired differences of all rows.

    Attributes:
        mean: over seeds, [G, P, K].
        variance: of one difference, over seeds with N - 1 below, [G, P, K].
        rows: M.
        seeds: N.
    """

    mean: Array
    variance: Array
    rows: int
    seeds: int


class Estimates(NamedTuple):
    """What a rule says of each difference over pairs: estimate, standard error, df, [G, K]."""

    diff: Array
    se: Array
    df: Array


class Prior(NamedTuple):
    """How variances spread over the differences of a pair: d0 and s0^2, [G, P]."""

    d0: Array
    s0_sq: Array


def order(rows: int) -> tuple["np.ndarray[tuple[int], np.dtype[np.intp]]", ...]:
    """Return the row and the other of each difference; the first M - 1 are the baseline's."""
    return np.triu_indices(rows, 1)


def differences(accuracies: Array) -> Differences:
    """Return the paired differences of accuracies [G, P, M, N]."""
    rows, seeds = accuracies.shape[2:]
    first, second = order(rows)
    paired = accuracies[:, :, first] - accuracies[:, :, second]
    mean = paired.mean(-1)
    paired -= mean[..., None]
    variance = np.einsum("gpkn,gpkn->gpk", paired, paired) / (seeds - 1)
    return Differences(mean, np.where(variance < TINY**2, 0.0, variance), rows, seeds)


def fit_prior(d: Differences) -> Prior:
    """Fit a scaled inverse chi squared distribution to the variances.

    Its degrees of freedom d0 are at most (N - 1)(M - 3): with the N - 1 of a difference, not more
    than those of the block design.

    Source: Smyth, Stat. Appl. Genet. Mol. Biol. 3(1), 2004, section 6.2.
    """
    freedom = d.seeds - 1
    if d.rows < 3:
        return Prior(np.zeros(d.mean.shape[:2]), np.zeros(d.mean.shape[:2]))
    middle = np.median(d.variance, axis=-1)
    usable = middle > 0
    floored = np.maximum(d.variance, 1e-5 * middle[..., None])
    floored = np.where(usable[..., None], floored, 1.0)
    e = np.log(floored) - digamma(freedom / 2) + np.log(freedom / 2)
    excess = e.var(axis=-1, ddof=1) - polygamma(1, freedom / 2)
    spread = excess > 0
    fitted = 2 * inverse_trigamma(np.where(spread, excess, 1.0))
    scale = np.exp(e.mean(axis=-1) + digamma(fitted / 2) - np.log(fitted / 2))
    d0 = np.clip(np.where(spread, fitted, np.inf), 0, freedom * max(d.rows - 3, 0))
    return Prior(np.where(usable, d0, 0.0), np.where(spread, scale, floored.mean(axis=-1)))


def inverse_trigamma(x: Array) -> Array:
    """Solve trigamma(y) = x for positive x, by Newton's method on 1/trigamma."""
    y = 0.5 + 1 / x
    for _ in range(50):
        value = polygamma(1, y)
        step = value * (1 - value / x) / polygamma(2, y)
        y = y + step
        if np.all(np.abs(step) <= 1e-12 * y):
            break
    return np.where(x > 1e7, x**-0.5, np.where(x < 1e-6, 1 / x, y))


def noise(d: Differences, prior: Prior) -> Array:
    """Return the probability of a variance as large as each row's or larger, [G, P, M].

    It is 1 where it cannot be computed: two rows, or no prior.

    Source: Grubbs, JASA 43, 1948 (variances of single rows from variances of differences).
    """
    if d.rows < 3:
        return np.ones((*d.mean.shape[:2], d.rows))
    sums = d.variance @ _incidence(d.rows)
    own = (sums - sums.sum(-1, keepdims=True) / (2 * (d.rows - 1))) / (d.rows - 2)
    known = (prior.d0 > 0)[..., None]
    d0, half = prior.d0[..., None], prior.s0_sq[..., None] / 2
    return np.where(
        known, fdtrc(d.seeds - 1, np.where(known, d0, 1.0), np.maximum(own, 0) / half), 1.0
    )


def typical(d: Differences, prior: Prior, p: Array) -> Array:
    """Return the variance that differences borrow, [G, P]: the mean over usual rows, or s0^2."""
    first, second = order(d.rows)
    kept = (p[..., first] >= OUTLIER) & (p[..., second] >= OUTLIER)
    count = kept.sum(-1)
    mean = (d.variance * kept).sum(-1) / np.maximum(count, 1)
    return np.where(count > 0, np.maximum(prior.s0_sq, mean), prior.s0_sq)


def variances(d: Differences) -> tuple[Array, Array]:
    """Return the rule's variance of a difference of one seed and its df, [G, P, K]."""
    prior = fit_prior(d)
    p = noise(d, prior)
    first, second = order(d.rows)
    alone = (p[..., first] < NOISY) | (p[..., second] < NOISY)
    d0 = np.where(alone, 0.0, prior.d0[..., None])
    return moderate(d, d0, typical(d, prior, p)[..., None])


def moderate(d: Differences, d0: Array, centre: Array) -> tuple[Array, Array]:
    """Return the weighted mean of own variances and a centre with d0 df, and the sum of the df."""
    df = d0 + (d.seeds - 1)
    return (d0 * centre + (d.seeds - 1) * d.variance) / df, df


def over_pairs(d: Differences, variance: Array, df: Array) -> Estimates:
    """Average over pairs, which are independent, with Satterthwaite's degrees of freedom.

    A difference without variance has no interval: its standard error and df are nan.

    Source: Satterthwaite, Biometrics Bulletin 2, 1946.
    """
    pairs = d.mean.shape[1]
    squared = np.where(variance > 0, variance, np.nan) / d.seeds
    if pairs == 1:
        return Estimates(d.mean[:, 0], np.sqrt(squared[:, 0]), df[:, 0])
    total = squared.sum(1)
    return Estimates(d.mean.mean(1), np.sqrt(total) / pairs, total**2 / (squared**2 / df).sum(1))


def this_rule(d: Differences) -> Estimates:
    """Return the rule's estimates over pairs."""
    return over_pairs(d, *variances(d))


def _incidence(rows: int) -> Array:
    """[K, M], 1 where a row is in a difference."""
    first, second = order(rows)
    number = np.arange(len(first))
    matrix = np.zeros((len(first), rows))
    matrix[number, first] = matrix[number, second] = 1.0
    return matrix
