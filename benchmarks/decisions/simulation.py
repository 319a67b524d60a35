"""Simulated grids, and what the rules say of their rows."""

import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from benchmarks.decisions.alternatives import ALPHA, dunnett_critical, half_widths, holm, p_values
from benchmarks.decisions.rule import Estimates, order
from benchmarks.decisions.scenarios import Array, Scenario

SEED = 16
ROWS = 26
BATCH = 1_500_000
"""Numbers in the largest array of a batch of grids."""

Ranks = np.ndarray[tuple[int, ...], np.dtype[np.intp]]
Flags = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


class Setting(NamedTuple):
    """The size of a grid."""

    seeds: int
    pairs: int
    rows: int = ROWS

    def __str__(self) -> str:
        pairs = "1 pair" if self.pairs == 1 else f"{self.pairs} pairs"
        return f"{self.seeds} seeds, {pairs}"


def simulate(
    scenario: Scenario, setting: Setting, grids: int, means: Array | None = None
) -> Iterator[Array]:
    """Yield the accuracies [G, P, M, N] of ``grids`` grids in batches, always the same.

    Args:
        scenario: how errors are drawn.
        setting: size of a grid.
        grids: number of grids.
        means: true mean of each row, [M]; default: all are 0.
    """
    rng = np.random.default_rng([SEED, zlib.crc32(scenario.name.encode()), *setting])
    seeds, pairs, rows = setting
    batch = max(1, BATCH // (pairs * seeds * rows * (rows - 1) // 2))
    for start in range(0, grids, batch):
        errors = scenario.draw(rng, (min(batch, grids - start), pairs, rows, seeds))
        yield errors if means is None else errors + means[:, None]


def to_baseline(e: Estimates, rows: int) -> Estimates:
    """Return the estimates of the baseline's differences only, [G, M - 1]."""
    return Estimates(*(values[:, : rows - 1] for values in e))


def any_told(e: Estimates) -> Flags:
    """Check for each grid whether any of these rows is marked as different from the baseline.

    For this question Holm's adjustment is Bonferroni's.
    """
    return np.asarray((p_values(e) * e.diff.shape[1] < ALPHA).any(1))


def any_told_by_dunnett(e: Estimates) -> Flags:
    """Check the same with the critical values of Dunnett's distribution at each row's df."""
    critical = dunnett_critical(e.df, e.diff.shape[1])
    return np.asarray((np.abs(e.diff / e.se) > critical).any(1))


def covered(e: Estimates, true: float = 0.0) -> Flags:
    """Check whether each 95 % interval holds the true difference."""
    return np.asarray(np.abs(e.diff - true) <= half_widths(e))


def false_discoveries(e: Estimates, null: Flags) -> Array:
    """Return for each grid the share of false ones among Benjamini and Hochberg's discoveries.

    Args:
        e: differences to the baseline, [G, K].
        null: whether the true difference is 0, [K].

    Source: Benjamini & Hochberg, Journal of the Royal Statistical Society B 57, 1995.
    """
    p = p_values(e)
    count = p.shape[1]
    at = np.argsort(p, axis=1)
    below = np.take_along_axis(p, at, 1) <= ALPHA * np.arange(1, count + 1) / count
    number = np.where(below.any(1), count - np.argmax(below[:, ::-1], axis=1), 0)
    found = np.arange(count) < number[:, None]
    return np.asarray((found & null[at]).sum(1) / np.maximum(number, 1))


# --- leading groups, "behind" and rank ranges -----------------------------------------------------


class Standings(NamedTuple):
    """A rule's answers for each row of each grid, [G, M].

    Attributes:
        leading: no other row is shown to be better.
        rank_low: 1 and the number of rows told to be better.
        rank_high: M less the number of rows told to be worse.
        behind: largest distance to the best, in points.
    """

    leading: Flags
    rank_low: Ranks
    rank_high: Ranks
    behind: Array


def square(values: Array, rows: int, sign: int) -> Array:
    """Return values [G, K] of the differences as [G, M, M]: [:, i, j] of i - j, 0 for i = j.

    Args:
        values: of each difference.
        rows: M.
        sign: that of j - i relative to i - j: -1 or 1.
    """
    first, second = order(rows)
    matrix = np.zeros((len(values), rows, rows))
    matrix[:, first, second] = values
    matrix[:, second, first] = sign * values
    return matrix


def standings(e: Estimates, rows: int) -> Standings:
    """Return this rule's standings of estimates of all differences, [G, K]."""
    told: Flags = np.asarray(square(p_values(e), rows, 1) * (rows - 1) < ALPHA)
    diff = square(e.diff, rows, -1)
    wins: Flags = told & np.greater(diff, 0)  # a row and itself: the difference is 0
    leading: Flags = np.logical_not(wins.any(1))
    upper = diff + square(half_widths(e), rows, 1)
    candidate = leading[:, :, None] & ~np.eye(rows, dtype=bool)
    behind = np.maximum(np.where(candidate, upper, 0.0).max(1), 0.0)
    return Standings(leading, 1 + wins.sum(1), rows - wins.sum(2), behind)


def leading_before(e: Estimates, rows: int) -> Flags:
    """Return the former group, [G, M]: the highest mean and rows not shown to differ (Holm)."""
    best = square(e.diff, rows, -1).sum(2).argmax(1)
    p = square(p_values(e), rows, 1)[np.arange(len(best)), best]
    others = np.arange(rows) != best[:, None]
    told = np.zeros_like(others)
    told[others] = (holm(p[others].reshape(len(best), rows - 1)) < ALPHA).ravel()
    return ~told


def leading_hsu(e: Estimates, rows: int) -> Flags:
    """Return Hsu's group for pooled variances: one-sided Dunnett at 95 %, [G, M].

    Source: Hsu, Annals of Statistics 12, 1984.
    """
    allowed = square(dunnett_critical(e.df, rows - 1, sides=1) * e.se, rows, 1)
    return np.asarray((square(e.diff, rows, -1) <= allowed).all(1))


def bootstrapped_ranks(accuracies: Array) -> tuple[Ranks, Ranks]:
    """Return the former rank intervals of one pair: percentiles over all resamples of its seeds.

    Args:
        accuracies: [G, M, N] without ties.

    Returns:
        Lowest and highest rank, [G, M].

    Source: Efron, Annals of Statistics 7, 1979.
    """
    seeds = accuracies.shape[-1]
    chosen = np.stack(np.meshgrid(*[np.arange(seeds)] * seeds), -1).reshape(-1, seeds)
    means = accuracies[:, :, chosen].mean(-1)  # [G, M, N^N]
    ranks: Ranks = np.sort(1 + np.argsort(np.argsort(-means, axis=1), axis=1), axis=-1)
    low, high = (int(np.ceil(q * len(chosen) - 1e-9)) - 1 for q in (0.025, 0.975))
    return ranks[..., low], ranks[..., high]
