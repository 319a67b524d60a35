import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdbench.report.page.drawn_bars import LengthScale, interval_bar, reach
from kdbench.stats.paired_differences import Contrast


def contrast(diff: float, half: float) -> Contrast:
    low, high = diff - half, diff + half
    return Contrast("a", "b", 1, 3, diff, se=1.0, df=2.0, low=low, high=high, p=0.5, p_adj=0.5)


@given(st.floats(-50, 50), st.floats(0.01, 50), st.floats(0.1, 50))
def test_bars_stay_in_their_drawing_and_cut_ends_are_marked(
    diff: float, half: float, points: float
) -> None:
    bar = interval_bar(contrast(diff, half), points)
    assert bar is not None
    assert 1 <= bar.low <= bar.middle <= bar.high <= 99
    reached = max(abs(diff - half), abs(diff + half)) / points
    if abs(reached - 49 / 48) > 1e-6:
        assert bar.cut == (reached > 49 / 48)


def test_interval_without_ends_has_no_bar() -> None:
    assert interval_bar(None, 1.0) is None
    assert interval_bar(Contrast("a", "b", 1, 1, 0.5), 1.0) is None
    assert interval_bar(contrast(0.5, 1.0), 0.0) is None


def test_nine_of_ten_intervals_fit() -> None:
    intervals = [contrast(0.0, float(i)) for i in range(1, 11)]
    assert reach(intervals) == 9.0
    assert reach([*intervals, Contrast("a", "b", 1, 1, 99.0)]) == 9.0
    assert reach([]) == 0.0


def test_lengths_lie_between_whole_numbers() -> None:
    scale = LengthScale.around([45.8, math.nan, 54.2])
    assert scale == LengthScale(45, 55)
    assert [scale.length(value) for value in (45.0, 50.0, 55.0, 60.0)] == [0.0, 50.0, 100.0, 100.0]
    assert scale.length(math.nan) is None
    assert LengthScale.around([math.nan]) is None
    assert LengthScale(3, 3).length(3.0) is None


def test_lengths_of_times_begin_at_zero() -> None:
    scale = LengthScale.from_zero([2.0, 0.5])
    assert scale is not None and scale.length(0.5) == pytest.approx(25.0)
    assert LengthScale.from_zero([]) is None
