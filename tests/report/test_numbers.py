"""Numbers and intervals as text."""

import math
from typing import Any

import pandas as pd
import pytest

from kdbench.report import numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234.5, "1,234.50"),
        (-1.234, "−1.23"),
        (-0.001, "0.00"),
        (0, "0.00"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (math.nan, "–"),
        (None, "–"),
        (pd.NA, "–"),
    ],
)
def test_number(value: Any, text: str) -> None:
    assert numbers.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.27, "+0.27"), (-0.27, "−0.27"), (-0.001, "0.00"), (math.inf, "+∞"), (math.nan, "–")],
)
def test_signed_number(value: float, text: str) -> None:
    assert numbers.signed(value) == text


def test_interval() -> None:
    assert numbers.interval(-1.766, 2.319) == "[−1.77, +2.32]"
    assert numbers.interval(1.25, 3.0, 1, sign=False) == "[1.2, 3.0]"
    assert numbers.interval(-math.inf, 0.5) == "[−∞, +0.50]"


@pytest.mark.parametrize("unknown", [None, math.nan, pd.NA])
def test_interval_with_an_unknown_end_is_empty(unknown: Any) -> None:
    assert numbers.interval(unknown, 1.0) == numbers.interval(1.0, unknown) == ""


def test_value_with_interval() -> None:
    assert numbers.with_interval(0.27, -1.766, 2.319) == "+0.27 [−1.77, +2.32]"
    assert numbers.with_interval(1.5, math.nan, math.nan, 1, sign=False) == "1.5"
    assert numbers.with_interval(12.0, 3.0, math.inf, 1, sign=False) == "12.0 [3.0, ∞]"
    assert numbers.with_interval(math.nan, 0.0, 1.0) == "–"


@pytest.mark.parametrize("value", [None, math.nan, math.inf, pd.NA])
def test_only_finite_numbers_are_known(value: Any) -> None:
    assert not numbers.known(value) and numbers.plain(value) is None
