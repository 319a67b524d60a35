"""The rules that this one is compared with, and the distributions that they decide by."""

from collections.abc import Callable
from functools import cache

import numpy as np
from scipy.special import chdtri, ndtr, roots_hermitenorm, roots_legendre, stdtr, stdtrit

from benchmarks.decisions.rule import (
    Differences,
    Estimates,
    fit_prior,
    moderate,
    over_pairs,
    this_rule,
)
from benchmarks.decisions.scenarios import Array

ALPHA = 0.05
Rule = Callable[[Differences], Estimates]


def paired_t(d: Differences) -> Estimates:
    """Paired t tests with a separate variance per difference, pairs independent (before)."""
    return over_pairs(d, d.variance, np.full_like(d.variance, d.seeds - 1))


def pooled(d: Differences) -> Estimates:
    """One residual variance per pair: the analysis of variance of rows x seeds, seeds as blocks.

    The mean variance of a difference is twice the residual mean square.
    """
    mean = np.broadcast_to(d.variance.mean(-1, keepdims=True), d.variance.shape)
    return over_pairs(d, mean, np.full_like(mean, (d.rows - 1) * (d.seeds - 1)))


def limma(d: Differences) -> Estimates:
    """Moderated variances with s0^2 as their centre, for noisy rows, too.

    Source: Smyth, Stat. Appl. Genet. Mol. Biol. 3(1), 2004.
    """
    prior = fit_prior(d)
    return over_pairs(d, *moderate(d, prior.d0[..., None], prior.s0_sq[..., None]))


BEFORE, POOLED, LIMMA, THIS = (
    "paired t + Holm (before)",
    "pooled block ANOVA",
    "moderated with s0^2 alone",
    "this rule",
)
RULES: dict[str, Rule] = {BEFORE: paired_t, POOLED: pooled, LIMMA: limma, THIS: this_rule}
DUNNETT = "this rule with Dunnett"


def p_values(e: Estimates) -> Array:
    """Return two-sided p-values of Student's t test; nan without an interval."""
    return np.asarray(2 * stdtr(e.df, -np.abs(e.diff / e.se)))


def half_widths(e: Estimates) -> Array:
    """Return half the widths of 95 % intervals for one comparison."""
    return np.asarray(stdtrit(e.df, 1 - ALPHA / 2) * e.se)


def holm(p: Array) -> Array:
    """Adjust p-values along the last axis (Holm, Scandinavian Journal of Statistics 6, 1979)."""
    count = p.shape[-1]
    at = np.argsort(p, axis=-1)
    stepped = np.take_along_axis(p, at, -1) * (count - np.arange(count))
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, at, np.maximum.accumulate(stepped, -1), -1)
    return np.minimum(adjusted, 1.0)


def dunnett_critical(df: Array, comparisons: int, sides: int = 2) -> Array:
    """Return the 5 % critical values of Dunnett's distribution at each df, which are 1 or more.

    The distribution is that of the largest of ``comparisons`` values |t| (one side: t) with
    correlation 1/2 and a common variance. It is interpolated in 1/df between 40 values.

    Source: Dunnett, JASA 50, 1955.
    """
    inverse, known = _dunnett_table(comparisons, sides)
    return np.interp(1 / df, inverse, known)


@cache
def _dunnett_table(comparisons: int, sides: int) -> tuple[Array, Array]:
    inverse = np.linspace(1e-3, 1, 40)
    return inverse, np.array([_dunnett_root(1 / x, comparisons, sides) for x in inverse])


def _dunnett_root(df: float, comparisons: int, sides: int) -> float:
    z, weights = roots_hermitenorm(64)
    weights = weights / weights.sum()
    u, parts = roots_legendre(96)
    scale = np.sqrt(chdtri(df, (1 - u) / 2) / df)[:, None]  # quantiles of sqrt(chi^2/df)
    low, high = 1.0, 400.0
    while high - low > 1e-6 * high:
        c = (low + high) / 2
        inside = ndtr(z + np.sqrt(2) * c * scale)
        if sides == 2:
            inside = inside - ndtr(z - np.sqrt(2) * c * scale)
        below = float(parts / 2 @ (inside**comparisons @ weights))
        low, high = (low, c) if below > 1 - ALPHA else (c, high)
    return (low + high) / 2
