"""Comparisons of all rows, on a teacher-student pair and over pairs.

Source: Satterthwaite, Biometrics Bulletin 2, 1946 (degrees of freedom over pairs); for the others
see ``moderated_variance`` and ``standings``.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kdbench.stats.moderated_variance import moderate
from kdbench.stats.over_seeds import TINY, Accuracies, mean, spread
from kdbench.stats.paired_differences import Array, Contrasts, with_tests
from kdbench.stats.standings import Standing, standings

PAIRS = 4
"""Fewest pairs from which anything is said about other pairs."""


@dataclass(frozen=True)
class PairStatistics:
    """What the runs on one pair show.

    Attributes:
        d0: degrees of freedom that each difference borrows.
        s0_sq: the prior's variance, in squared points.
        typical: the variance that is borrowed, in squared points.
        noisy: rows whose runs differ so much that they are judged by their own variance.
        untested: rows with fewer than two seeds.
        means: row -> mean accuracy in percent.
        sds: row -> standard deviation over seeds; nan for one seed.
        contrasts: of all rows with common seeds.
        standings: of the tested rows; None if there are none, or two have no seed in common.
    """

    d0: float
    s0_sq: float
    typical: float
    noisy: tuple[str, ...]
    untested: tuple[str, ...]
    means: Mapping[str, float]
    sds: Mapping[str, float]
    contrasts: Contrasts
    standings: Mapping[str, Standing] | None


@dataclass(frozen=True)
class OverPairs:
    """What the runs show over all pairs; a statement about these pairs, not about others.

    Attributes:
        pairs: names of the pairs that count.
        left_out: names of the pairs on which no difference has an interval, e.g. with one seed.
        complete: rows with two seeds or more on every one of ``pairs``, or of all pairs if none
            counts.
        means: row -> mean over ``pairs``, or over all pairs if none counts; only of rows with a
            result on each.
        contrasts: of all rows, each over the pairs where both have a common seed.
        standings: of the complete rows; None if there are none, or two have no seed in common.
    """

    pairs: tuple[str, ...]
    left_out: tuple[str, ...]
    complete: tuple[str, ...]
    means: Mapping[str, float]
    contrasts: Contrasts
    standings: Mapping[str, Standing] | None


def pair(accuracies: Mapping[str, Accuracies]) -> PairStatistics:
    """Compare all rows of a pair.

    Args:
        accuracies: row -> seed -> accuracy in percent, without the teacher; rows without a result
            are left out.
    """
    present = {row: values for row, values in accuracies.items() if values}
    rows = list(present)
    seeds = sorted({seed for values in present.values() for seed in values})
    table = np.array([[present[row].get(seed, math.nan) for seed in seeds] for row in rows])
    common, diff, sd = _paired(table.reshape(len(rows), len(seeds)))
    tested = np.diagonal(common) > 1
    own = np.where(sd < TINY, 0.0, sd**2)
    chosen = np.ix_(tested, tested)
    of_tested = np.diagonal(common)[tested]
    occurring = (~np.isnan(table[tested])).any(axis=0).sum() if rows else 0
    cap = of_tested.sum() - len(of_tested) - (occurring - 1) - 2 * (of_tested.max(initial=0) - 1)
    variances = moderate(own[chosen], common[chosen], float(cap))
    moderated, freedom = np.full_like(own, math.nan), np.full_like(own, math.nan)
    moderated[chosen], freedom[chosen] = variances.moderated, variances.freedom
    np.fill_diagonal(common, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        se = np.sqrt(moderated / common)
    contrasts = Contrasts(
        rows,
        with_tests(np.sign(common), common, diff, se, freedom, sd, int(tested.sum()) - 1),
    )
    names = [row for row, two in zip(rows, tested, strict=True) if two]
    return PairStatistics(
        d0=variances.d0,
        s0_sq=variances.s0_sq,
        typical=variances.typical,
        noisy=tuple(row for row, own_only in zip(names, variances.noisy, strict=True) if own_only),
        untested=tuple(row for row, two in zip(rows, tested, strict=True) if not two),
        means={row: mean(values.values()) for row, values in present.items()},
        sds={row: spread(values.values()) for row, values in present.items()},
        contrasts=contrasts,
        standings=standings(names, contrasts),
    )


def _paired(table: Array) -> tuple[Array, Array, Array]:
    """Return the number, the mean and the standard deviation of all paired differences.

    Args:
        table: accuracies [M, S]; nan where a row has no result.

    Returns:
        Three arrays [M, M], row minus column; the number on the diagonal is the row's own.
    """
    count, diff, sd = (np.full((len(table), len(table)), math.nan) for _ in range(3))
    for i, row in enumerate(table):
        gaps = row - table
        known = ~np.isnan(gaps)
        n = known.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            centre = np.where(known, gaps, 0.0).sum(axis=1) / n
            squares = np.where(known, gaps - centre[:, None], 0.0) ** 2
            spread_of = np.sqrt(squares.sum(axis=1) / (n - 1))
        count[i], diff[i] = n, centre
        sd[i] = np.where(n > 1, spread_of, math.nan)
    return count, diff, sd


def over(pairs: Mapping[str, PairStatistics]) -> OverPairs:
    """Combine the pairs of a grid; seeds of different pairs are independent.

    Args:
        pairs: name -> what the runs on that pair show.
    """
    begun = {name: one for name, one in pairs.items() if one.means}
    used = {name: one for name, one in begun.items() if one.contrasts.with_interval()}
    counted = used or begun
    rows = list(dict.fromkeys(row for one in begun.values() for row in one.means))
    compared = {row for one in used.values() for row in one.contrasts.with_interval()}
    contrasts = _mean_contrasts(rows, list(counted.values()), len(compared) - 1)
    everywhere = [row for row in rows if all(row in one.means for one in counted.values())]
    untested = {row for one in counted.values() for row in one.untested}
    complete = tuple(row for row in everywhere if row not in untested)
    return OverPairs(
        pairs=tuple(used),
        left_out=tuple(name for name in pairs if name not in used),
        complete=complete,
        means={row: mean([one.means[row] for one in counted.values()]) for row in everywhere},
        contrasts=contrasts,
        standings=standings(complete, contrasts),
    )


def _mean_contrasts(
    rows: Sequence[str], pairs: Sequence[PairStatistics], comparisons: int
) -> Contrasts:
    """Average the contrasts of every two rows over the pairs where both have a common seed."""
    shape = (len(rows), len(rows))
    number, total, squares, fourths = (np.zeros(shape) for _ in range(4))
    fewest, sd = np.full(shape, math.inf), np.full(shape, math.nan)
    place = {row: i for i, row in enumerate(rows)}
    for one in pairs:
        part = one.contrasts.differences
        at = np.ix_(*[[place[row] for row in one.contrasts.rows]] * 2)
        there = part.n > 0
        number[at] += there
        total[at] += np.where(there, part.diff, 0.0)
        # With the pairs that have an interval alone, it would be about other pairs than the mean
        # is: so an unknown standard error, nan, makes the sum unknown.
        squares[at] += np.where(there, part.se**2, 0.0)
        fourths[at] += np.where(there, part.se**4 / part.df, 0.0)
        fewest[at] = np.where(there, np.minimum(fewest[at], part.n), fewest[at])
        sd[at] = np.where(there, part.sd, sd[at])
    n = np.where(number > 0, fewest, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        diff, se, df = total / number, np.sqrt(squares) / number, squares**2 / fourths
    sd = np.where(number == 1, sd, math.nan)
    return Contrasts(rows, with_tests(number, n, diff, se, df, sd, comparisons))


def other_pairs(pairs: Mapping[str, PairStatistics]) -> PairStatistics | None:
    """Ask what the pairs say of other pairs, with pairs in place of seeds; None below ``PAIRS``.

    Only rows with a result on every pair count; a pair with one seed counts, too.
    """
    begun = [one for one in pairs.values() if one.means]
    if len(begun) < PAIRS:
        return None
    rows = [row for row in begun[0].means if all(row in one.means for one in begun)]
    return pair({row: {i: one.means[row] for i, one in enumerate(begun)} for row in rows})
