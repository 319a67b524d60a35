"""Comparisons of all rows, on a teacher-student pair and over pairs.

Source: Satterthwaite, Biometrics Bulletin 2, 1946 (degrees of freedom over pairs); for the others
see ``moderated_variance`` and ``standings``.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kdbench.stats.moderated_variance import moderate
from kdbench.stats.over_seeds import TINY, Accuracies, mean, spread, t_quantile, t_test
from kdbench.stats.paired_differences import Contrast, Contrasts
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
    tested = [row for row, values in present.items() if len(values) > 1]
    differences = {
        (row, other): [value - present[other][seed] for seed, value in present[row].items()
                       if seed in present[other]]
        for i, row in enumerate(present) for other in list(present)[i + 1 :]
    }  # fmt: skip
    position = {row: i for i, row in enumerate(tested)}
    own = np.full((len(tested), len(tested)), math.nan)
    common = np.diag([float(len(present[row])) for row in tested])
    for (row, other), values in differences.items():
        if row in position and other in position:
            i, j = position[row], position[other]
            common[i, j] = common[j, i] = len(values)
            own[i, j] = own[j, i] = _variance(values)
    sizes, seeds = np.diagonal(common), {seed for row in tested for seed in present[row]}
    cap = float(sizes.sum() - len(tested) - (len(seeds) - 1) - 2 * (sizes.max(initial=0) - 1))
    variances = moderate(own, common, cap)
    contrasts = []
    for (row, other), values in differences.items():
        if not values:
            continue
        contrast = Contrast(row, other, 1, len(values), mean(values), sd=spread(values))
        if row in position and other in position and len(values) > 1:
            at = position[row], position[other]
            se = math.sqrt(variances.moderated[at] / len(values))
            contrast = _tested(contrast, se, float(variances.freedom[at]), len(tested) - 1)
        contrasts.append(contrast)
    found = Contrasts(contrasts)
    return PairStatistics(
        d0=variances.d0,
        s0_sq=variances.s0_sq,
        typical=variances.typical,
        noisy=tuple(row for row, i in position.items() if variances.noisy[i]),
        untested=tuple(row for row in present if row not in position),
        means={row: mean(values.values()) for row, values in present.items()},
        sds={row: spread(values.values()) for row, values in present.items()},
        contrasts=found,
        standings=standings(tested, found),
    )


def _variance(values: Sequence[float]) -> float:
    """Return the variance of differences; nan for fewer than two, 0 for rounding errors."""
    sd = spread(values)
    return 0.0 if sd < TINY else sd**2


def _tested(contrast: Contrast, se: float, df: float, comparisons: int) -> Contrast:
    """Add interval and p-values; without a spread there is none."""
    if not (se > 0 and df > 0):
        return contrast
    half = t_quantile(df) * se
    p = t_test(contrast.diff / se, df)
    return replace(
        contrast,
        se=se,
        df=df,
        low=contrast.diff - half,
        high=contrast.diff + half,
        p=p,
        p_adj=min(1.0, comparisons * p),
    )


def over(pairs: Mapping[str, PairStatistics]) -> OverPairs:
    """Combine the pairs of a grid; seeds of different pairs are independent.

    Args:
        pairs: name -> what the runs on that pair show.
    """
    begun = {name: one for name, one in pairs.items() if one.means}
    used = {name: one for name, one in begun.items() if any(c.known for c in one.contrasts.once())}
    counted = used or begun
    rows = list(dict.fromkeys(row for one in begun.values() for row in one.means))
    with_interval = {
        row for one in used.values() for c in one.contrasts.once() if c.known
        for row in (c.row, c.other)
    }  # fmt: skip
    contrasts = []
    for i, row in enumerate(rows):
        for other in rows[i + 1 :]:
            parts = [
                one.contrasts[row, other]
                for one in counted.values()
                if (row, other) in one.contrasts
            ]
            if parts:
                contrasts.append(_mean_contrast(row, other, parts, len(with_interval) - 1))
    found = Contrasts(contrasts)
    complete = [
        row
        for row in rows
        if all(row in one.means and row not in one.untested for one in counted.values())
    ]
    return OverPairs(
        pairs=tuple(used),
        left_out=tuple(name for name in pairs if name not in used),
        complete=tuple(complete),
        means={
            row: mean([one.means[row] for one in counted.values()])
            for row in rows
            if all(row in one.means for one in counted.values())
        },
        contrasts=found,
        standings=standings(complete, found),
    )


def _mean_contrast(row: str, other: str, parts: Sequence[Contrast], comparisons: int) -> Contrast:
    contrast = Contrast(
        row, other, len(parts), min(part.n for part in parts), mean(part.diff for part in parts)
    )
    if len(parts) == 1:
        contrast = replace(contrast, sd=parts[0].sd)
    # With the pairs that have an interval alone, it would be about other pairs than the mean is.
    if not all(part.known for part in parts):
        return contrast
    squares = [part.se**2 for part in parts]
    total = math.fsum(squares)
    if not total > 0:
        return contrast
    df = total**2 / math.fsum(s**2 / part.df for s, part in zip(squares, parts, strict=True))
    return _tested(contrast, math.sqrt(total) / len(parts), df, comparisons)


def other_pairs(pairs: Mapping[str, PairStatistics]) -> PairStatistics | None:
    """Ask what the pairs say of other pairs, with pairs in place of seeds; None below ``PAIRS``.

    Only rows with a result on every pair count; a pair with one seed counts, too.
    """
    begun = [one for one in pairs.values() if one.means]
    if len(begun) < PAIRS:
        return None
    rows = [row for row in begun[0].means if all(row in one.means for one in begun)]
    return pair({row: {i: one.means[row] for i, one in enumerate(begun)} for row in rows})
