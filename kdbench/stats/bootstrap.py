"""The seed bootstrap: the distribution of a statistic when seeds are resampled with replacement.

Seeds are resampled within a pair, identically for all its methods, since methods are paired by
seed. The result is deterministic: few seeds have few resamples, which are all enumerated, and
random draws come from a generator with a fixed seed.

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
"""Number of draws over pairs, and maximum number of resamples of one pair's seeds."""
GENERATOR = 20210202
LEVEL = 0.95
FEWEST = 5
"""Fewest pairs with an interval: over fewer, those of few seeds are much too narrow."""


@cache
def resamples(n: int) -> tuple[Array, Array]:
    """Return the resamples of ``n`` seeds: all distinct ones up to 7, else ``RESAMPLES`` random.

    Returns:
        Weights of the seeds [K, n], whose rows sum to 1, and probabilities of the resamples [K].
    """
    if math.comb(2 * n - 1, n) > RESAMPLES:
        generator = np.random.default_rng([GENERATOR, n])
        counts = generator.multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
        probability = np.full(RESAMPLES, 1 / RESAMPLES)
    else:
        chosen = list(itertools.combinations_with_replacement(range(n), n))
        counts = np.array([np.bincount(seeds, minlength=n) for seeds in chosen])
        ways = [math.factorial(n) / math.prod(map(math.factorial, row)) for row in counts.tolist()]
        probability = np.array(ways) / n**n
    weights = counts / n
    for array in (weights, probability):
        array.flags.writeable = False
    return weights, probability


@cache
def draws(pair: int, n: int) -> NDArray[np.intp]:
    """Return the index into ``resamples(n)`` of each draw on pair number ``pair``, [RESAMPLES]."""
    generator = np.random.default_rng([GENERATOR, pair, n])
    _, probability = resamples(n)
    edges = np.cumsum(probability)
    indices = np.searchsorted(edges, generator.random(RESAMPLES), side="right")
    return np.minimum(indices, len(edges) - 1)


def over_pairs(values: Sequence[tuple[int, int, Array]]) -> Array:
    """Return a statistic's mean over pairs in every draw.

    Args:
        values: for each pair its number, its number of seeds n, and the statistic of each of
            ``resamples(n)`` [K, ...].

    Returns:
        [RESAMPLES, ...].
    """
    total: Any = 0.0
    for pair, n, statistic in values:
        total = total + statistic[draws(pair, n)]
    return np.asarray(total / len(values))


def interval(samples: Array, level: float = LEVEL) -> tuple[Array, Array]:
    """Return the ends of the percentile interval of draws [B, ...]; an end may be infinite.

    If any draw is nan, both ends are nan.
    """
    ordered = np.sort(samples, axis=0)  # nan goes last
    below, above = (1 - level) / 2, (1 + level) / 2
    # Without interpolation, which is undefined between two infinities.
    low, high = (ordered[math.ceil(q * len(ordered) - 1e-9) - 1] for q in (below, above))
    defined = ~np.isnan(ordered[-1])
    return np.where(defined, low, np.nan), np.where(defined, high, np.nan)
