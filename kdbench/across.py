"""Statistics over teacher-student pairs, as pure functions of arrays of runs; no torch.

A pair's accuracies are an array [S, M]: seeds that its methods have in common, and methods.

Source: Agarwal et al., NeurIPS 2021 (interquartile mean, probability of improvement, stratified
bootstrap); Demsar, JMLR 2006 (average ranks).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kdbench import stats
from kdbench.resample import RESAMPLES, Array, draws, interval, over_pairs, resamples
from kdbench.stats import Difference

TIE = 0.2
"""Accuracy points: a difference that is no larger is a tie."""
DIGITS = 9
"""Means over seeds are rounded to these before they are ranked: rounding errors break no tie."""


@dataclass(frozen=True)
class Estimate:
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


def average_ranks(pairs: Sequence[Array]) -> list[Estimate]:
    """Each method's rank by its mean over seeds, averaged over pairs.

    Args:
        pairs: accuracies [S, M] of each pair; all methods are in all pairs.
    """
    points = [ranks(np.round(pair.mean(0), DIGITS)) for pair in pairs]
    centre = np.mean(points, axis=0)
    low = high = np.full(len(centre), np.nan)
    if all(len(pair) > 1 for pair in pairs):
        resampled = []
        for number, pair in enumerate(pairs):
            weights, _ = resamples(len(pair))
            resampled.append((number, len(pair), ranks(np.round(weights @ pair, DIGITS))))
        low, high = interval(over_pairs(resampled))
    return [Estimate(*map(float, ends)) for ends in zip(centre, low, high, strict=True)]


def iqm(values: Array) -> float:
    """Mean of the middle half: a quarter of the values, rounded down, is left out at each end."""
    cut = len(values) // 4
    return float(np.sort(values)[cut : len(values) - cut].mean()) if len(values) else math.nan


def interquartile_mean(tasks: Sequence[Sequence[float]]) -> Estimate:
    """IQM over all runs of all pairs; the interval draws seeds again within each pair.

    Args:
        tasks: a score per seed, of each pair.
    """
    scores = np.concatenate([np.asarray(task, dtype=float) for task in tasks])
    value = iqm(scores)
    if not np.isfinite(scores).all() or not all(len(task) > 1 for task in tasks):
        return Estimate(value)
    order = np.argsort(scores, kind="stable")
    values, n = scores[order], len(scores)
    cut = n // 4
    # A resample is how often each value was drawn: its sorted values need no sorting again, and
    # clipping the running count leaves the middle half.
    upto = np.cumsum(_counts(tuple(len(task) for task in tasks))[:, order], axis=1, dtype=np.int32)
    kept = np.clip(upto, cut, n - cut)[:, :-1].astype(np.float64)
    # Summation by parts over values times the steps of the clipped count.
    sums = values[-1] * (n - cut) - values[0] * cut - kept @ np.diff(values)
    low, high = interval(sums / (n - 2 * cut))
    return Estimate(value, float(low), float(high))


def _counts(sizes: tuple[int, ...]) -> "np.ndarray[tuple[int, int], np.dtype[np.uint8]]":
    """How often each run is drawn in each draw, [RESAMPLES, sum of sizes]."""
    out = np.empty((RESAMPLES, sum(sizes)), np.uint8)
    start = 0
    for pair, n in enumerate(sizes):
        weights, _ = resamples(n)
        out[:, start : start + n] = np.rint(weights * n).astype(np.uint8)[draws(pair, n)]
        start += n
    return out


def mann_whitney(method: Array, other: Array) -> float:
    """Probability that a run of the method beats a run of the other; half of ties count."""
    return float(_beats(method, other).mean())


def _beats(method: Array, other: Array) -> Array:
    above = method[:, None] > other[None, :]
    return above + 0.5 * (method[:, None] == other[None, :])


def probability_of_improvement(pairs: Sequence[tuple[Array, Array]]) -> Estimate:
    """``mann_whitney`` averaged over pairs; the interval draws seeds again, for both alike.

    Args:
        pairs: accuracies of the method and of the baseline on their common seeds, of each pair.
    """
    tables = [_beats(method, other) for method, other in pairs]
    value = float(np.mean([table.mean() for table in tables])) if tables else math.nan
    if not tables or not all(len(table) > 1 for table in tables):
        return Estimate(value)
    resampled = []
    for number, table in enumerate(tables):
        weights, _ = resamples(len(table))
        resampled.append((number, len(table), ((weights @ table) * weights).sum(1)))
    low, high = interval(over_pairs(resampled))
    return Estimate(value, float(low), float(high))


def average_relative_improvement(pairs: Sequence[tuple[Array, Array, Array]]) -> Estimate:
    """ARI with a seed-bootstrap interval, whose ends are infinite where a denominator may vanish.

    Args:
        pairs: accuracies of reference, method and student on their common seeds, of each pair.
    """
    means = [[float(side.mean()) for side in pair] for pair in pairs]
    value = stats.average_relative_improvement(*zip(*means, strict=True)) if pairs else math.nan
    if not pairs or not all(len(reference) > 1 for reference, _, _ in pairs):
        return Estimate(value)
    resampled = []
    for number, pair in enumerate(pairs):
        weights, _ = resamples(len(pair[0]))
        reference, method, student = (weights @ side for side in pair)
        gain = method - student
        gain[np.abs(gain) < stats.TINY] = 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = 100 * (reference - method) / gain
        # 0/0: in this resample the ratio may be anything.
        ratio[np.isnan(ratio)] = math.inf
        resampled.append((number, len(pair[0]), ratio))
    with np.errstate(invalid="ignore"):
        samples = over_pairs(resampled)
    if np.isnan(samples).any():  # inf on one pair, -inf on another
        return Estimate(value, -math.inf, math.inf)
    low, high = interval(samples)
    return Estimate(value, float(low), float(high))


def wins(differences: Sequence[float], tie: float = TIE) -> tuple[int, int, int]:
    """Wins, ties and losses of mean differences; a tie is one of at most ``tie`` points."""
    won = sum(difference > tie + stats.TINY for difference in differences)
    lost = sum(difference < -tie - stats.TINY for difference in differences)
    return won, len(differences) - won - lost, lost


@dataclass(frozen=True)
class Overall:
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


def overall(differences: Sequence[Difference]) -> Overall:
    """The mean difference over pairs: about these pairs, not about pairs in general.

    Seeds of different pairs are taken as independent; degrees of freedom are Satterthwaite's
    (Biometrics Bulletin, 1946). Pairs without a common seed are left out.
    """
    known = [d for d in differences if d.n]
    if not known:
        return Overall(0, 0, *[math.nan] * 7)
    n, fewest = len(known), min(d.n for d in known)
    centre = stats.mean(d.mean for d in known)
    middle = float(np.median([d.mean for d in known]))
    parts = [d.sd**2 / d.n for d in known]
    total = sum(parts)
    if fewest < 2 or not total > stats.TINY**2:
        return Overall(n, fewest, centre, middle, *[math.nan] * 5)
    freedom = total**2 / sum(part**2 / (d.n - 1) for part, d in zip(parts, known, strict=True))
    se = math.sqrt(total) / n
    half = stats.t_quantile(freedom) * se
    p = stats.t_test(centre / se, freedom)
    return Overall(n, fewest, centre, middle, se, freedom, centre - half, centre + half, p)
