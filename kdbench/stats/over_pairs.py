"""Statistics over teacher-student pairs, as pure functions of arrays.

The accuracies of a pair are an array [S, M] of the common seeds and the methods.

Source: Agarwal et al., NeurIPS 2021 (interquartile mean, probability of improvement, stratified
bootstrap); Demsar, JMLR 2006 (average ranks).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from kdbench.stats import over_seeds
from kdbench.stats.bootstrap import (
    FEWEST,
    RESAMPLES,
    Array,
    draws,
    interval,
    over_pairs,
    resamples,
)

TIE = 0.2
"""Largest difference in accuracy points that counts as a tie."""
DIGITS = 9
"""Digits to which means over seeds are rounded before ranking, so that ties are exact."""


@dataclass(frozen=True)
class ValueWithInterval:
    """A value with the ends of its 95 % interval, which are nan if there is none."""

    value: float
    low: float = math.nan
    high: float = math.nan


def ranks(values: Array) -> Array:
    """Rank along the last axis, 1 for the highest; tied values share the mean of their ranks.

    Args:
        values: [..., M]; none is nan.
    """
    value, other = values[..., :, None], values[..., None, :]
    higher = (other > value).sum(-1)
    same = (other == value).sum(-1)
    return np.asarray(higher + (same + 1) / 2)


def average_ranks(pairs: Sequence[Array]) -> list[float]:
    """Return each method's rank by its mean over seeds, averaged over pairs.

    Args:
        pairs: accuracies [S, M] of each pair, with the same methods.
    """
    by_pair = [ranks(np.round(pair.mean(0), DIGITS)) for pair in pairs]
    return [float(rank) for rank in np.mean(by_pair, axis=0)]


def iqm(values: Array) -> float:
    """Return the mean of the middle half; a quarter, rounded down, is cut at each end."""
    cut = len(values) // 4
    return float(np.sort(values)[cut : len(values) - cut].mean()) if len(values) else math.nan


def interquartile_mean(tasks: Sequence[Sequence[float]]) -> ValueWithInterval:
    """Return the IQM over all runs of all pairs; the interval resamples seeds within each pair.

    There is none below ``FEWEST`` pairs.

    Args:
        tasks: scores of each pair, one per seed.
    """
    scores = np.concatenate([np.asarray(task, dtype=float) for task in tasks])
    value = iqm(scores)
    if len(tasks) < FEWEST or min(map(len, tasks)) < 2 or not np.isfinite(scores).all():
        return ValueWithInterval(value)
    order = np.argsort(scores, kind="stable")
    values, n = scores[order], len(scores)
    cut = n // 4
    # A resample is the number of times each value was drawn. So it needs no sorting, and clipping
    # the running count selects the middle half.
    counts = _counts(tuple(len(task) for task in tasks))
    running = np.zeros(RESAMPLES, np.int32)
    # Summation by parts over values times the steps of the clipped count. A loop over runs, since
    # numpy's cumsum along this axis takes three times as long.
    sums = np.full(RESAMPLES, values[-1] * (n - cut) - values[0] * cut)
    fewest, most = np.int32(cut), np.int32(n - cut)
    clipped, moved = np.empty_like(running), np.empty_like(sums)
    for run, step in zip(order[:-1].tolist(), np.diff(values).tolist(), strict=True):
        np.add(running, counts[run], out=running)
        np.maximum(running, fewest, out=clipped)
        np.minimum(clipped, most, out=clipped)
        np.multiply(clipped, step, out=moved)
        np.subtract(sums, moved, out=sums)
    low, high = interval(sums / (n - 2 * cut))
    return ValueWithInterval(value, float(low), float(high))


@lru_cache(maxsize=4)
def _counts(sizes: tuple[int, ...]) -> "np.ndarray[tuple[int, int], np.dtype[np.uint8]]":
    """Count how often each run occurs in each draw, [sum of sizes, RESAMPLES]."""
    out = np.empty((sum(sizes), RESAMPLES), np.uint8)
    start = 0
    for pair, n in enumerate(sizes):
        weights, _ = resamples(n)
        out[start : start + n] = np.rint(weights.T * n).astype(np.uint8)[:, draws(pair, n)]
        start += n
    return out


def beats(methods: Array, other: Array) -> Array:
    """Check whether run i of each method beats run j of another, [S, S, M]; a tie is half a win.

    The mean over i and j is the Mann-Whitney estimate of the probability of improvement.

    Args:
        methods: [S, M].
        other: [S].
    """
    left, right = methods[:, None, :], other[None, :, None]
    return (left > right) + 0.5 * (left == right)


def probability_of_improvement(pairs: Sequence[tuple[Array, Array]]) -> list[ValueWithInterval]:
    """Return the mean of ``beats`` over pairs; the interval resamples both sides' seeds together.

    Args:
        pairs: for each pair, accuracies of methods [S, M] and baseline [S] on common seeds.

    Returns:
        One estimate per method.
    """
    tables = [beats(methods, other) for methods, other in pairs]
    centre = np.mean([table.mean((0, 1)) for table in tables], axis=0)
    resampled = []
    for number, table in enumerate(tables):
        n, _, m = table.shape
        weights, _ = resamples(n)
        rows = (weights @ table.reshape(n, n * m)).reshape(-1, n, m)
        resampled.append((number, n, (rows * weights[:, :, None]).sum(1)))
    return _estimates(centre, resampled)


def average_relative_improvement(
    pairs: Sequence[tuple[Array, Array, Array]],
) -> list[ValueWithInterval]:
    """Return ARI with a bootstrap interval, whose ends are infinite if a denominator may be 0.

    Args:
        pairs: for each pair, accuracies of the reference [S], of methods [S, M] and of the student
            [S] on common seeds.

    Returns:
        One estimate per method.
    """
    means = [(reference.mean(), m.mean(0), student.mean()) for reference, m, student in pairs]
    centre = [
        over_seeds.average_relative_improvement(
            [r for r, _, _ in means], column, [s for *_, s in means]
        )
        for column in zip(*(m for _, m, _ in means), strict=True)
    ]
    resampled = []
    for number, (reference, methods, student) in enumerate(pairs):
        weights, _ = resamples(len(reference))
        drawn = weights @ methods
        gain = drawn - (weights @ student)[:, None]
        gain[np.abs(gain) < over_seeds.TINY] = 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = 100 * ((weights @ reference)[:, None] - drawn) / gain
        resampled.append((number, len(reference), ratio))
    return _estimates(np.array(centre), resampled)


def _estimates(
    centre: Array, resampled: Sequence[tuple[int, int, Array]]
) -> list[ValueWithInterval]:
    """Add the intervals of ``over_pairs`` to values [M].

    There are none below ``FEWEST`` pairs, or if a pair has one seed.
    """
    low = high = np.full(len(centre), np.nan)
    if len(resampled) >= FEWEST and all(n > 1 for _, n, _ in resampled):
        with np.errstate(invalid="ignore"):
            samples = over_pairs(resampled)
        # 0/0, or inf on one pair and -inf on another: unbounded on both sides.
        undefined = np.isnan(samples).any(0)
        low, high = interval(samples)
        low, high = np.where(undefined, -np.inf, low), np.where(undefined, np.inf, high)
    return [ValueWithInterval(*map(float, ends)) for ends in zip(centre, low, high, strict=True)]


def wins(differences: Sequence[float], tie: float = TIE) -> tuple[int, int, int]:
    """Count wins, ties and losses; a difference of at most ``tie`` points is a tie."""
    won = sum(difference > tie + over_seeds.TINY for difference in differences)
    lost = sum(difference < -tie - over_seeds.TINY for difference in differences)
    return won, len(differences) - won - lost, lost
