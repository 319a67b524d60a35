"""Numbers to what they say: means, spreads, paired differences, ARI; pure functions, no torch.

Runs of one seed share data order and initial weights, so methods are compared seed by seed.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

Accuracies = Mapping[int, float]
"""Seed -> test accuracy in percent."""

ALPHA = 0.05
POWER = 0.8
TINY = 1e-9
"""Accuracies in percent that differ by less differ by the rounding of their means only."""


def mean(values: Iterable[float]) -> float:
    """Arithmetic mean; nan of nothing."""
    values = list(values)
    return math.fsum(values) / len(values) if values else math.nan


def spread(values: Iterable[float]) -> float:
    """Standard deviation, n - 1 below; nan for fewer than two."""
    return _moments(list(values))[1]


def _moments(values: Sequence[float]) -> tuple[float, float]:
    """``mean`` and ``spread``."""
    # statistics.stdev calculates in fractions, which takes most of a large report's time.
    n = len(values)
    if not n:
        return math.nan, math.nan
    centre = math.fsum(values) / n
    if n < 2:
        return centre, math.nan
    return centre, math.sqrt(math.fsum([(v - centre) ** 2 for v in values]) / (n - 1))


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Ends of the 95 % t interval of a mean over seeds.

    nan for fewer than two seeds, and for seeds that are all the same: with few test images that
    is a coincidence, not a certainty.
    """
    centre, sd = _moments(values)
    if not sd >= TINY:
        return math.nan, math.nan
    half = t_quantile(len(values) - 1) * sd / math.sqrt(len(values))
    return centre - half, centre + half


def relative_improvements(
    reference: Sequence[float], method: Sequence[float], student: Sequence[float]
) -> list[float]:
    """Gain of a reference over a method, in percent of that method's gain over the student.

    Where the method gains nothing over the student the ratio is ``inf`` with the sign of the
    reference's gain, or ``nan`` where that is 0, too.

    Args:
        reference, method, student: mean accuracies, one per pair.

    Returns:
        ``100 * (reference - method) / (method - student)``, one per pair.

    Raises:
        ValueError: lengths differ.

    Source: Chen et al., AAAI 2021, the definition of ARI.
    """
    if not len(reference) == len(method) == len(student):
        raise ValueError(
            "one accuracy per pair is needed of each: "
            f"reference has {len(reference)}, method {len(method)}, student {len(student)}"
        )
    return [
        100 * _ratio(float(r) - float(m), float(m) - float(s))
        for r, m, s in zip(reference, method, student, strict=True)
    ]


def average_relative_improvement(
    reference: Sequence[float], method: Sequence[float], student: Sequence[float]
) -> float:
    """ARI of a reference over a method, in percent: the mean of ``relative_improvements``.

    A single pair where the method gains nothing over the student makes it ``inf``, ``-inf`` or
    ``nan``: it is reported as such, never dropped.

    Args:
        reference, method, student: mean accuracies, one per pair.

    Raises:
        ValueError: lengths differ, or there is no pair.

    Source: Chen et al., AAAI 2021.
    """
    ratios = relative_improvements(reference, method, student)
    if not ratios:
        raise ValueError("the average over no pair is not defined")
    # Not fmean: the sum of inf and -inf is nan here, and an error there.
    return sum(ratios) / len(ratios)


def unreliable(method: float, student: float, se: float) -> bool:
    """Whether ``method - student`` is no denominator: not above 2 standard errors.

    Args:
        method, student: means. se: standard error of their difference; nan where one seed cannot
            tell, and then nothing can be relied upon.
    """
    gain = method - student
    return not (gain > 0 and gain >= 2 * se)


@dataclass(frozen=True)
class Difference:
    """A paired difference on the seeds that both sides have done.

    Attributes:
        n: those seeds. mean: of the differences; nan without any. sd: their spread.
        low, high: ends of the 95 % t interval. p: two-sided. All three are nan where the
            differences of fewer than two seeds, or differences that are all the same, say
            nothing about their spread.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float
    p: float

    @property
    def se(self) -> float:
        """Standard error of the mean difference."""
        return self.sd / math.sqrt(self.n) if self.n > 1 else math.nan


def gaps(method: Accuracies, other: Accuracies) -> list[float]:
    """``method - other`` on the seeds that both have."""
    return [value - other[seed] for seed, value in method.items() if seed in other]


def difference(method: Accuracies, other: Accuracies) -> Difference:
    """``method - other``, seed by seed, with a paired t test."""
    found = gaps(method, other)
    n, (centre, sd) = len(found), _moments(found)
    # With few test images a spread of 0 is a coincidence, not a certainty.
    if not sd >= TINY:
        return Difference(n, centre, sd, math.nan, math.nan, math.nan)
    se = sd / math.sqrt(n)
    half = t_quantile(n - 1) * se
    return Difference(n, centre, sd, centre - half, centre + half, t_test(centre / se, n - 1))


def holm(ps: Sequence[float]) -> list[float]:
    """p values adjusted for their number by Holm's step-down method; nan stays nan, uncounted.

    Source: Holm, Scandinavian Journal of Statistics, 1979.
    """
    order = sorted((p, i) for i, p in enumerate(ps) if not math.isnan(p))
    adjusted = [math.nan] * len(ps)
    highest = 0.0
    for rank, (p, i) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(order) - rank)))
        adjusted[i] = highest
    return adjusted


def not_distinguishable_from_best(
    accuracies: Mapping[str, Accuracies], alpha: float = ALPHA
) -> set[str]:
    """The best method by its mean, and all that a test does not tell from it.

    The test is paired, on the seeds that both have, Holm-adjusted over the comparisons with the
    best. A method with fewer than two seeds in common cannot be told from the best.

    Args:
        accuracies: method -> seed -> accuracy; methods without any are left out.
    """
    present = {name: values for name, values in accuracies.items() if values}
    if not present:
        return set()
    best = max(present, key=lambda name: mean(present[name].values()))
    others = [name for name in present if name != best]
    ps = holm([difference(present[name], present[best]).p for name in others])
    return {best} | {name for name, p in zip(others, ps, strict=True) if not p < alpha}


def recovered_gap(accuracy: float, student: float, teacher: float) -> float:
    """Share of the teacher's lead over the student that a method wins: 0 none, 1 all.

    ``inf`` or ``nan`` where the teacher leads by nothing.
    """
    return _ratio(accuracy - student, teacher - student)


def standard_error(accuracy: float, n_test: int) -> float:
    """Binomial standard error, in points, of one accuracy in percent on ``n_test`` images."""
    share = accuracy / 100
    return 100 * math.sqrt(max(share * (1 - share), 0.0) / n_test) if n_test else math.nan


def pooled_sd(differences: Iterable[Difference]) -> float:
    """Spread of paired differences over all comparisons, weighted by degrees of freedom."""
    known = [d for d in differences if d.n > 1]
    freedom = sum(d.n - 1 for d in known)
    return math.sqrt(sum((d.n - 1) * d.sd**2 for d in known) / freedom) if freedom else math.nan


def detectable_difference(sd: float, n: int, alpha: float = ALPHA, power: float = POWER) -> float:
    """The difference that a two-sided paired t test on ``n`` seeds finds with this power.

    Args:
        sd: of the paired differences.
        n: seeds; nan for fewer than two.
    """
    return detectable(sd / math.sqrt(n), n - 1, alpha, power) if n > 1 else math.nan


def detectable(se: float, freedom: float, alpha: float = ALPHA, power: float = POWER) -> float:
    """The true value that a two-sided t test tells from 0 with this power.

    Args:
        se: standard error of what is tested. freedom: its degrees of freedom; nan below one.
    """
    if math.isnan(se) or not freedom >= 1:
        return math.nan
    from scipy.special import nctdtrinc

    return float(nctdtrinc(freedom, 1 - power, t_quantile(freedom, alpha))) * se


def _ratio(above: float, below: float) -> float:
    """A quotient that is ``inf``, ``-inf`` or ``nan`` where ``below`` is 0 up to rounding."""
    if math.isnan(above) or math.isnan(below):
        return math.nan
    if abs(below) >= TINY:
        return above / below
    return math.copysign(math.inf, above) if abs(above) >= TINY else math.nan


# scipy.special, not scipy.stats: it loads in a fraction of the time and is quick on single numbers.
@cache
def t_quantile(freedom: float, alpha: float = ALPHA) -> float:
    """The t value that is exceeded, on either side, with probability ``alpha``."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 1 - alpha / 2))


def t_test(t: float, freedom: float) -> float:
    """Two-sided p of a t value."""
    from scipy.special import stdtr

    return float(2 * stdtr(freedom, -abs(t)))
