"""The seed bootstrap: what a statistic does when the seeds are drawn again, with replacement.

Seeds are drawn within a pair, and for all its methods alike, since methods are paired by seed.
Everything is deterministic: few seeds have few resamples, which are all looked at, and what is left
to chance comes from a generator with a fixed seed.

Source: Efron, Annals of Statistics, 1979; stratified, as in Agarwal et al., NeurIPS 2021.
"""

import itertools
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RESAMPLES = 2000
"""Draws over pairs; and the most resamples of one pair's seeds that are looked at."""
GENERATOR = 20210202
LEVEL = 0.95


@cache
def resamples(n: int) -> tuple[Array, Array]:
    """The resamples of ``n`` seeds: all distinct ones up to 7 seeds, else ``RESAMPLES`` random.

    Returns:
        Weights of the seeds [K, n], each row of sum 1, and the resamples' probabilities [K].
    """
    if math.comb(2 * n - 1, n) > RESAMPLES:
        generator = np.random.default_rng([GENERATOR, n])
        counts = generator.multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
        probability = np.full(RESAMPLES, 1 / RESAMPLES)
    else:
        chosen = list(itertools.combinations_with_replacement(range(n), n))
        counts = np.array([np.bincount(one, minlength=n) for one in chosen])
        ways = [math.factorial(n) / math.prod(map(math.factorial, row)) for row in counts.tolist()]
        probability = np.array(ways) / n**n
    weights = counts / n
    for array in (weights, probability):
        array.flags.writeable = False
    return weights, probability


@cache
def draws(pair: int, n: int) -> NDArray[np.intp]:
    """Which of ``resamples(n)`` each draw takes on the pair of this number, [RESAMPLES]."""
    generator = np.random.default_rng([GENERATOR, pair, n])
    _, probability = resamples(n)
    edges = np.cumsum(probability)
    found = np.searchsorted(edges, generator.random(RESAMPLES), side="right")
    return np.minimum(found, len(edges) - 1)


def over_pairs(values: Sequence[tuple[int, int, Array]]) -> Array:
    """The mean over pairs, in every draw.

    Args:
        values: of each pair its number, its number of seeds n, and the statistic in each of
            ``resamples(n)``, [K, ...].

    Returns:
        [RESAMPLES, ...].
    """
    total: Any = 0.0
    for pair, n, of in values:
        total = total + of[draws(pair, n)]
    return np.asarray(total / len(values))


def interval(samples: Array, level: float = LEVEL) -> tuple[Array, Array]:
    """Ends of the percentile interval of draws [B, ...]; an end may be infinite.

    A draw that is nan leaves no interval.
    """
    ordered = np.sort(samples, axis=0)  # nan goes last
    below, above = (1 - level) / 2, (1 + level) / 2
    # Without interpolation: between two infinities there is nothing.
    low, high = (ordered[math.ceil(q * len(ordered) - 1e-9) - 1] for q in (below, above))
    known = ~np.isnan(ordered[-1])
    return np.where(known, low, np.nan), np.where(known, high, np.nan)


def of_mean(values: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """Percentile interval of the mean of one value a seed; nan for fewer than two."""
    n = len(values)
    if n < 2:
        return math.nan, math.nan
    weights, probability = resamples(n)
    means = weights @ np.asarray(values, dtype=float)
    # Methods, not functions of numpy: there may be very many of these small arrays.
    order = means.argsort(kind="stable")
    edges = probability[order].cumsum()
    # A probability that is the level's up to rounding has reached it.
    last = len(order) - 1
    low, high = edges.searchsorted(((1 - level) / 2 - 1e-12, (1 + level) / 2 - 1e-12)).tolist()
    return float(means[order[min(low, last)]]), float(means[order[min(high, last)]])
