"""Statistics over seeds: means, standard deviations, paired differences, ARI; pure functions.

Runs of one seed share data order and initial weights, so methods are compared seed by seed.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

Accuracies = Mapping[int, float]
"""Seed -> test accuracy in percent."""

ALPHA = 0.05
POWER = 0.8
TINY = 1e-9
"""Smaller differences of accuracies in percent are rounding errors of their means."""


def mean(values: Iterable[float]) -> float:
    """Return the arithmetic mean; nan without values."""
    values = list(values)
    return math.fsum(values) / len(values) if values else math.nan


def spread(values: Iterable[float]) -> float:
    """Return the standard deviation, with divisor n - 1; nan for fewer than two values."""
    return _moments(list(values))[1]


def _moments(values: Sequence[float]) -> tuple[float, float]:
    """Return ``mean`` and ``spread``."""
    # statistics.stdev calculates in fractions, which takes most of a large report's time.
    n = len(values)
    if not n:
        return math.nan, math.nan
    centre = math.fsum(values) / n
    if n < 2:
        return centre, math.nan
    return centre, math.sqrt(math.fsum([(v - centre) ** 2 for v in values]) / (n - 1))


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of the 95 % t interval of a mean over seeds.

    They are nan for fewer than two seeds, and for seeds with equal values: with few test images
    that is a coincidence and does not mean that the variance is 0.
    """
    centre, sd = _moments(values)
    if not sd >= TINY:
        return math.nan, math.nan
    half = t_quantile(len(values) - 1) * sd / math.sqrt(len(values))
    return centre - half, centre + half


def relative_improvements(
    reference: Sequence[float], method: Sequence[float], student: Sequence[float]
) -> list[float]:
    """Return a reference's gain over a method in percent of the method's gain over the student.

    If the method gains nothing over the student, the ratio is ``inf`` with the sign of the
    reference's gain, or ``nan`` if that gain is 0, too.

    Args:
        reference: mean accuracy of the reference on each pair.
        method: mean accuracy of the method on each pair.
        student: mean accuracy of the student on each pair.

    Returns:
        ``100 * (reference - method) / (method - student)``, one per pair.

    Raises:
        ValueError: lengths differ.

    Source: Chen et al., AAAI 2021, the definition of ARI.
    """
    if not len(reference) == len(method) == len(student):
        raise ValueError(
            "reference, method and student need one accuracy per pair; they have "
            f"{len(reference)}, {len(method)} and {len(student)}"
        )
    return [
        100 * _ratio(float(r) - float(m), float(m) - float(s))
        for r, m, s in zip(reference, method, student, strict=True)
    ]


def average_relative_improvement(
    reference: Sequence[float], method: Sequence[float], student: Sequence[float]
) -> float:
    """Return the ARI of a reference over a method, the mean of ``relative_improvements``.

    One pair on which the method gains nothing over the student makes the ARI ``inf``, ``-inf`` or
    ``nan``; such a pair is never dropped.

    Args:
        reference: mean accuracy of the reference on each pair.
        method: mean accuracy of the method on each pair.
        student: mean accuracy of the student on each pair.

    Raises:
        ValueError: lengths differ, or there are no pairs.

    Source: Chen et al., AAAI 2021.
    """
    ratios = relative_improvements(reference, method, student)
    if not ratios:
        raise ValueError("the average relative improvement needs at least one pair")
    # Not fmean, which raises an error for inf and -inf; their sum is nan.
    return sum(ratios) / len(ratios)


def unreliable(method: float, student: float, se: float) -> bool:
    """Check whether ``method - student`` is below 2 standard errors, too small for a denominator.

    Args:
        method: mean accuracy of the method.
        student: mean accuracy of the student.
        se: standard error of their difference; nan (unknown, as with one seed) is unreliable.
    """
    gain = method - student
    return not (gain > 0 and gain >= 2 * se)


def gaps(method: Accuracies, other: Accuracies) -> list[float]:
    """Return ``method - other`` on each common seed."""
    return [value - other[seed] for seed, value in method.items() if seed in other]


def holm(ps: Sequence[float]) -> list[float]:
    """Adjust p-values for multiple comparisons by Holm's step-down method; nan is left out.

    Source: Holm, Scandinavian Journal of Statistics, 1979.
    """
    order = sorted((p, i) for i, p in enumerate(ps) if not math.isnan(p))
    adjusted = [math.nan] * len(ps)
    highest = 0.0
    for rank, (p, i) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(order) - rank)))
        adjusted[i] = highest
    return adjusted


def recovered_gap(accuracy: float, student: float, teacher: float) -> float:
    """Return the share of the teacher's lead over the student that a method recovers.

    It is ``inf`` or ``nan`` if the teacher has no lead.
    """
    return _ratio(accuracy - student, teacher - student)


def standard_error(accuracy: float, n_test: int) -> float:
    """Return the binomial standard error, in points, of an accuracy on ``n_test`` images."""
    share = accuracy / 100
    return 100 * math.sqrt(max(share * (1 - share), 0.0) / n_test) if n_test else math.nan


def detectable(se: float, freedom: float, alpha: float = ALPHA, power: float = POWER) -> float:
    """Return the true value that a two-sided t test against 0 detects with ``power``.

    Args:
        se: standard error of the tested value.
        freedom: its degrees of freedom; for fewer than one the result is nan.
        alpha: significance level.
        power: probability of a significant result.
    """
    if math.isnan(se) or not freedom >= 1:
        return math.nan
    from scipy.special import nctdtrinc

    return float(nctdtrinc(freedom, 1 - power, t_quantile(freedom, alpha))) * se


def seeds_needed(
    se: float,
    freedom: float,
    n: int,
    target: float,
    alpha: float = ALPHA,
    power: float = POWER,
) -> float:
    """Return the number of seeds with which a t test would detect ``target`` with ``power``.

    The degrees of freedom are held at today's, so the number is slightly too high.

    Args:
        se: standard error of the tested difference with today's seeds.
        freedom: its degrees of freedom.
        n: today's number of seeds, the least that is returned.
        target: the true difference to detect, in the unit of ``se``; its sign does not matter.
        alpha: significance level, e.g. divided by the number of comparisons.
        power: probability of a significant result.

    Returns:
        A whole number; ``inf`` for a target of 0, ``nan`` if ``se`` or ``freedom`` is unknown.
    """
    least = detectable(se, freedom, alpha, power)
    if math.isnan(least) or math.isnan(target):
        return math.nan
    if abs(target) < TINY:
        return math.inf
    # The tolerance: rounding errors do not ask for another seed.
    return float(max(n, math.ceil(n * (least / target) ** 2 - TINY)))


def _ratio(above: float, below: float) -> float:
    """Return a quotient; ``inf``, ``-inf`` or ``nan`` if ``below`` is 0 up to rounding."""
    if math.isnan(above) or math.isnan(below):
        return math.nan
    if abs(below) >= TINY:
        return above / below
    return math.copysign(math.inf, above) if abs(above) >= TINY else math.nan


# scipy.special loads in a fraction of the time of scipy.stats and is fast on single numbers.
@cache
def t_quantile(freedom: float, alpha: float = ALPHA) -> float:
    """Return the two-sided critical t value at level ``alpha``."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 1 - alpha / 2))
