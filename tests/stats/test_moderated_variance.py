"""Parts of the moderated variance that the test vectors reach too rarely."""

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import polygamma

from kdbench.stats.contrasts import pair
from kdbench.stats.moderated_variance import inverse_trigamma, prior


@given(st.floats(-12, 12))
def test_inverse_trigamma(exponent: float) -> None:
    x = 10**exponent
    assert float(polygamma(1, inverse_trigamma(x))) == pytest.approx(x, rel=1e-6)


@pytest.mark.parametrize("x", [1e-5, 0.3, 150.0, 1e3, 1e6])
def test_inverse_trigamma_iterates_where_its_limits_are_inexact(x: float) -> None:
    assert float(polygamma(1, inverse_trigamma(x))) == pytest.approx(x, rel=1e-12)


def test_prior_of_equal_variances_borrows_all_that_may_be_borrowed() -> None:
    d0, s0_sq = prior(np.full(6, 2.0), np.full(6, 2.0), 8.0)
    assert d0 == 8.0 and s0_sq == pytest.approx(2.0)


def test_prior_of_too_few_variances_borrows_nothing() -> None:
    for variances in ([], [1.0, 2.0], [0.0, 0.0, 0.0, 5.0, 0.0]):
        d0, s0_sq = prior(np.array(variances), np.full(len(variances), 2.0), 8.0)
        assert d0 == 0 and math.isnan(s0_sq)


@pytest.mark.parametrize("seed", [30, 33, 40])
def test_row_is_as_noisy_with_missing_variances_as_without(seed: int) -> None:
    draw = random.Random(seed).gauss
    rows = {f"row{i}": {s: draw(50, 1) for s in range(4)} for i in range(8)}
    rows["noisy"] = {0: 48.1, 1: 51.9, 2: 48.1, 3: 51.9}
    without_common_seeds = {f"apart{i}": {10: draw(50, 1), 11: draw(50, 1)} for i in range(4)}
    assert pair(rows).noisy == ("noisy",)
    assert pair(rows | without_common_seeds).noisy == ("noisy",)
