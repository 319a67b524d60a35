"""Scenarios: how the errors of simulated grids vary over rows and seeds.

Errors are arrays [G, P, M, N]: grids, teacher-student pairs, rows and seeds, in accuracy points.
Row 0 is the baseline. The standard deviation of an error is 1 point where nothing else is stated.
An effect of a seed on all rows is left out, because every rule compares rows on the same seeds.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.decisions.committed import Residuals

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Size = tuple[int, int, int, int]
Draw = Callable[[np.random.Generator, Size], Array]

ODD_ONE = 1
"""The row that differs in *noisy* and *collapse*."""
COLLAPSE_RATE, COLLAPSE_POINTS = 0.2, 40.0


@dataclass(frozen=True)
class Scenario:
    """A named way to draw errors.

    Attributes:
        name: of the column of a table.
        draw: draws errors of a size [G, P, M, N].
    """

    name: str
    draw: Draw


def normal(rng: np.random.Generator, size: Size) -> Array:
    """Independent normal errors."""
    return rng.standard_normal(size)


def spread(rng: np.random.Generator, size: Size) -> Array:
    """A variance per row and pair: scaled inverse chi squared, 4 df, mean 1."""
    variances = 2.0 / rng.chisquare(4, (*size[:3], 1))
    return rng.standard_normal(size) * np.sqrt(variances)


def groups(rng: np.random.Generator, size: Size) -> Array:
    """Rows 1 to 4 have 2.5 times the standard deviation; half of their variance is common."""
    grids, pairs, _, seeds = size
    errors = rng.standard_normal(size)
    common = rng.standard_normal((grids, pairs, 1, seeds))
    errors[:, :, 1:5] = 2.5 * math.sqrt(0.5) * (errors[:, :, 1:5] + common)
    return errors


def heavy(rng: np.random.Generator, size: Size) -> Array:
    """Errors of Student's t, 3 df, with variance 1."""
    return rng.standard_t(3, size) / math.sqrt(3)


def correlated(rng: np.random.Generator, size: Size) -> Array:
    """Families of four neighbouring rows share half of the variance of a seed."""
    grids, pairs, rows, seeds = size
    families = rng.standard_normal((grids, pairs, -(-rows // 4), seeds))
    shared = np.repeat(families, 4, axis=2)[:, :, :rows]
    return math.sqrt(0.5) * (rng.standard_normal(size) + shared)


def noisy(rng: np.random.Generator, size: Size) -> Array:
    """One row has 5 times the standard deviation."""
    return _scaled(rng, size, {ODD_ONE: 5.0})


def noisy_base(rng: np.random.Generator, size: Size) -> Array:
    """The baseline has 3 times the standard deviation."""
    return _scaled(rng, size, {0: 3.0})


def collapse(rng: np.random.Generator, size: Size) -> Array:
    """A fifth of one row's runs are 40 points worse; the errors of this row have mean -8."""
    errors = rng.standard_normal(size)
    collapsed = rng.random(size)[:, :, ODD_ONE] < COLLAPSE_RATE
    errors[:, :, ODD_ONE] -= COLLAPSE_POINTS * collapsed
    return errors


def lognormal(rng: np.random.Generator, size: Size) -> Array:
    """A standard deviation per row and pair: log-normal, sigma 0.5, mean square 1."""
    deviations = np.exp(0.5 * rng.standard_normal((*size[:3], 1)) - 0.25)
    return rng.standard_normal(size) * deviations


def skewed(rng: np.random.Generator, size: Size) -> Array:
    """Errors 1 - E of an exponential E: mean 0, variance 1, a long tail of bad runs."""
    return 1.0 - rng.standard_exponential(size)


def three_noisy(rng: np.random.Generator, size: Size) -> Array:
    """Three rows have 3 times the standard deviation."""
    return _scaled(rng, size, {1: 3.0, 2: 3.0, 3: 3.0})


def _scaled(rng: np.random.Generator, size: Size, deviations: dict[int, float]) -> Array:
    errors = rng.standard_normal(size)
    for row, deviation in deviations.items():
        errors[:, :, row] *= deviation
    return errors


def like_records(committed: list[Residuals], *, correlated: bool = True) -> Draw:
    """Return a scenario with the variances and covariances of committed results, at face value.

    Each simulated pair takes one of the committed pairs at random, and its rows in random order, so
    that any of them can be the baseline. Taken at face value, sample variances of S seeds are more
    unequal than the true ones, and their covariance matrix has rank S - 1: harsher than the truth.

    Args:
        committed: residuals [R, S] of each committed pair, with residual variance 1.
        correlated: draw errors with the sample covariances; otherwise independent ones with the
            sample variances.
    """

    def draw(rng: np.random.Generator, size: Size) -> Array:
        grids, pairs, rows, seeds = size
        errors = np.empty(size)
        chosen = rng.integers(len(committed), size=(grids, pairs))
        for number, residuals in enumerate(committed):
            at = np.nonzero(chosen == number)
            known, directions = residuals.shape
            if rows > known:
                raise ValueError(f"{rows} rows, but a committed pair has only {known}")
            order = np.argsort(rng.random((len(at[0]), known)), axis=1)[:, :rows]
            if correlated:
                drawn = rng.standard_normal((len(at[0]), directions, seeds))
                errors[at] = residuals[order] @ drawn / math.sqrt(directions - 1)
            else:
                deviations = residuals.std(1, ddof=1)[order]
                errors[at] = deviations[..., None] * rng.standard_normal((*order.shape, seeds))
        return errors

    return draw


REALISTIC = (
    Scenario("normal", normal),
    Scenario("spread", spread),
    Scenario("groups", groups),
    Scenario("heavy", heavy),
    Scenario("correlated", correlated),
)
NOISY, NOISY_BASE = Scenario("noisy", noisy), Scenario("noisy base", noisy_base)
COLLAPSE = Scenario("collapse", collapse)
UNSEEN = (
    Scenario("lognormal", lognormal),
    Scenario("skewed", skewed),
    Scenario("three noisy", three_noisy),
)


def first_table(committed: list[Residuals]) -> tuple[Scenario, ...]:
    """Return the scenarios of the first table; *records* only with committed results."""
    if not committed:
        return (*REALISTIC, NOISY, NOISY_BASE)
    records = Scenario("records", like_records(committed))
    variances = Scenario("record variances", like_records(committed, correlated=False))
    return (*REALISTIC, records, variances, NOISY, NOISY_BASE)
