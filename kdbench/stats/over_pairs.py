"""Statistics over teacher-student pairs, as pure functions of arrays of runs; no torch.

A pair's accuracies are an array [S, M]: seeds that its methods have in common, and methods.

Source: Agarwal et al., NeurIPS 2021 (interquartile mean, probability of improvement, stratified
bootstrap); Demsar, JMLR 2006 (average ranks).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from kdbench.stats import over_seeds
from kdbench.stats.bootstrap import RESAMPLES, Array, draws, interval, over_pairs, resamples
from kdbench.stats.over_seeds import Difference

TIE = 0.2
"""Accuracy points: a difference that is no larger is a tie."""
DIGITS = 9
"""Means over seeds are rounded to these before they are ranked: rounding errors break no tie."""


@dataclass(frozen=True)
class ValueWithInterval:
    """A value with the ends of its 95 % interval, which are nan where it has none."""

    value: float
    low: float = math.nan
    high: float = math.nan


def ranks(values: Array) -> Array:
    """Ranks along the last axis, 1 for the highest; what ties shares the mean of its ranks.

    Args:
        values: [..., M]; none is nan.
    """
    mine, other = values[..., :, None], values[..., None, :]
    higher = (other > mine).sum(-1)
    same = (other == mine).sum(-1)
    return np.asarray(higher + (same + 1) / 2)


def average_ranks(pairs: Sequence[Array]) -> list[ValueWithInterval]:
    """Each method's rank by its mean over seeds, averaged over pairs.

    Args:
        pairs: accuracies [S, M] of each pair; all methods are in all pairs.
    """
    points = [ranks(np.round(pair.mean(0), DIGITS)) for pair in pairs]
    resampled = []
    for number, pair in enumerate(pairs):
        weights, _ = resamples(len(pair))
        resampled.append((number, len(pair), ranks(np.round(weights @ pair, DIGITS))))
    return _estimates(np.mean(points, axis=0), resampled)


def iqm(values: Array) -> float:
    """Mean of the middle half: a quarter of the values, rounded down, is left out at each end."""
    cut = len(values) // 4
    return float(np.sort(values)[cut : len(values) - cut].mean()) if len(values) else math.nan


def interquartile_mean(tasks: Sequence[Sequence[float]]) -> ValueWithInterval:
    """IQM over all runs of all pairs; the interval draws seeds again within each pair.

    Args:
        tasks: a score per seed, of each pair.
    """
    scores = np.concatenate([np.asarray(task, dtype=float) for task in tasks])
    value = iqm(scores)
    if not np.isfinite(scores).all() or not all(len(task) > 1 for task in tasks):
        return ValueWithInterval(value)
    order = np.argsort(scores, kind="stable")
    values, n = scores[order], len(scores)
    cut = n // 4
    # A resample is how often each value was drawn: its sorted values need no sorting again, and
    # clipping the running count leaves the middle half.
    counts = _counts(tuple(len(task) for task in tasks))
    running = np.zeros(RESAMPLES, np.int32)
    # Summation by parts over values times the steps of the clipped count. A loop over runs, as
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
    """How often each run is drawn in each draw, [sum of sizes, RESAMPLES]."""
    out = np.empty((sum(sizes), RESAMPLES), np.uint8)
    start = 0
    for pair, n in enumerate(sizes):
        weights, _ = resamples(n)
        out[start : start + n] = np.rint(weights.T * n).astype(np.uint8)[:, draws(pair, n)]
        start += n
    return out


def beats(methods: Array, other: Array) -> Array:
    """Whether run i of a method beats run j of the other, [S, S, M]; a tie is half a win.

    The mean over i and j is the Mann-Whitney form of the probability of improvement.

    Args:
        methods: [S, M]. other: [S].
    """
    mine, its = methods[:, None, :], other[None, :, None]
    return (mine > its) + 0.5 * (mine == its)


def probability_of_improvement(pairs: Sequence[tuple[Array, Array]]) -> list[ValueWithInterval]:
    """The mean of ``beats`` over pairs; the interval draws seeds again, for both sides alike.

    Args:
        pairs: accuracies of methods [S, M] and of the baseline [S], on common seeds, of each pair.

    Returns:
        An estimate a method.
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
    """ARI with a seed-bootstrap interval, whose ends are infinite where a denominator may vanish.

    Args:
        pairs: accuracies of the reference [S], of methods [S, M] and of the student [S], on common
            seeds, of each pair.

    Returns:
        An estimate a method.
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
    """Values [M] with the intervals of ``over_pairs``, where every pair has two seeds or more."""
    low = high = np.full(len(centre), np.nan)
    if all(n > 1 for _, n, _ in resampled):
        with np.errstate(invalid="ignore"):
            samples = over_pairs(resampled)
        # 0/0, or inf on one pair and -inf on another: unbounded on both sides.
        torn = np.isnan(samples).any(0)
        low, high = interval(samples)
        low, high = np.where(torn, -np.inf, low), np.where(torn, np.inf, high)
    return [ValueWithInterval(*map(float, ends)) for ends in zip(centre, low, high, strict=True)]


def wins(differences: Sequence[float], tie: float = TIE) -> tuple[int, int, int]:
    """Wins, ties and losses of mean differences; a tie is one of at most ``tie`` points."""
    won = sum(difference > tie + over_seeds.TINY for difference in differences)
    lost = sum(difference < -tie - over_seeds.TINY for difference in differences)
    return won, len(differences) - won - lost, lost


@dataclass(frozen=True)
class MeanDifference:
    """The mean of paired differences over these pairs.

    Attributes:
        pairs: how many. seeds: the fewest seeds of one. mean, median: over pairs.
        se: standard error of the mean, from the spread over seeds alone. freedom: its degrees.
        low, high: ends of the 95 % t interval; nan where a pair has fewer than two seeds, or
            where nothing is known of the spread.
        p: two-sided.
    """

    pairs: int
    seeds: int
    mean: float
    median: float
    se: float
    freedom: float
    low: float
    high: float
    p: float


def overall(differences: Sequence[Difference]) -> MeanDifference:
    """The mean difference over pairs: about these pairs, not about pairs in general.

    Seeds of different pairs are taken as independent; degrees of freedom are Satterthwaite's
    (Biometrics Bulletin, 1946). Pairs without a common seed are left out.
    """
    known = [d for d in differences if d.n]
    if not known:
        return MeanDifference(0, 0, *[math.nan] * 7)
    n, fewest = len(known), min(d.n for d in known)
    centre = over_seeds.mean(d.mean for d in known)
    middle = float(np.median([d.mean for d in known]))
    parts = [d.sd**2 / d.n for d in known]
    total = sum(parts)
    if fewest < 2 or not total > over_seeds.TINY**2:
        return MeanDifference(n, fewest, centre, middle, *[math.nan] * 5)
    freedom = total**2 / sum(part**2 / (d.n - 1) for part, d in zip(parts, known, strict=True))
    se = math.sqrt(total) / n
    half = over_seeds.t_quantile(freedom) * se
    p = over_seeds.t_test(centre / se, freedom)
    return MeanDifference(n, fewest, centre, middle, se, freedom, centre - half, centre + half, p)
