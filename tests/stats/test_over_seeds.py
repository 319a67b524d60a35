import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from kdbench.grid import published
from kdbench.stats import over_seeds

PAPER = "SemCKD (AAAI 2021)/Table 1"
PAIRS = [
    ("resnet32x4", "vgg8"), ("resnet32x4", "vgg13"), ("vgg13", "ShuffleV2"),
    ("resnet32x4", "ShuffleV2"), ("wrn_40_2", "MobileNetV2"), ("vgg13", "vgg8"),
    ("resnet32x4", "resnet8x4"),
]  # fmt: skip


def column(method: str) -> list[float]:
    figures = [published.lookup(PAPER, method, teacher, student) for teacher, student in PAIRS]
    return [figure.mean for figure in figures if figure]


@pytest.mark.parametrize(
    ("method", "ours", "printed"),
    [
        ("kd", 72.57, 72.65), ("fitnets", 71.75, 71.92), ("at", 75.00, 75.21),
        ("sp", 65.01, 64.95), ("vid", 64.11, 64.11), ("hkd", 61.11, 61.23),
    ],
)  # fmt: skip
def test_ari_matches_the_paper(method: str, ours: float, printed: float) -> None:
    assert len(column(method)) == 7
    value = over_seeds.average_relative_improvement(
        column("semckd"), column(method), column("student")
    )
    assert value == pytest.approx(ours, abs=0.01)
    # The paper's means are rounded to two decimals before they get here.
    assert value == pytest.approx(printed, abs=0.25)


def test_ari_by_hand() -> None:
    # (74-72)/(72-70) = 1 and (66-65)/(65-60) = 0.2
    assert over_seeds.relative_improvements([74, 66], [72, 65], [70, 60]) == [100.0, 20.0]
    assert over_seeds.average_relative_improvement([74, 66], [72, 65], [70, 60]) == 60.0
    arrays = (np.array([74.0, 66.0]), np.array([72.0, 65.0]), np.array([70.0, 60.0]))
    assert over_seeds.average_relative_improvement(*arrays) == 60.0  # type: ignore[arg-type]


def test_ari_refuses_unequal_lengths_and_no_pairs() -> None:
    with pytest.raises(ValueError, match="one accuracy per pair; they have 2, 1 and 2"):
        over_seeds.average_relative_improvement([1, 2], [1], [1, 2])
    with pytest.raises(ValueError, match="at least one pair"):
        over_seeds.average_relative_improvement([], [], [])


def test_ari_over_a_zero_gain() -> None:
    assert over_seeds.relative_improvements([71, 69, 70], [70, 70, 70], [70, 70, 70])[:2] == [
        math.inf, -math.inf,
    ]  # fmt: skip
    assert math.isnan(over_seeds.relative_improvements([70], [70], [70])[0])
    assert over_seeds.average_relative_improvement([71, 72], [70, 71], [70, 70]) == math.inf
    assert math.isnan(over_seeds.average_relative_improvement([71, 69], [70, 70], [70, 70]))
    # 0.1 + 0.2 is not 0.3: a gain of rounding is a gain of nothing.
    assert over_seeds.relative_improvements([1.0], [0.1 + 0.2], [0.3]) == [math.inf]
    assert math.isnan(over_seeds.average_relative_improvement([math.nan], [2], [1]))
    assert math.isnan(over_seeds.average_relative_improvement([3], [2], [math.nan]))


@pytest.mark.parametrize(
    ("method", "se", "answer"),
    [(72, 0.4, False), (72, 1.0, False), (72, 1.01, True), (69, 0.1, True), (70, 0.0, True),
     (72, math.nan, True), (math.nan, 0.1, True)],
)  # fmt: skip
def test_unreliable_denominators(method: float, se: float, answer: bool) -> None:
    assert over_seeds.unreliable(method, 70, se) is answer


def test_t_interval_matches_scipy() -> None:
    values = [71.3, 72.1, 70.9, 71.0]
    wanted = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert over_seeds.t_interval(values) == pytest.approx((wanted.low, wanted.high))
    for nothing in ([], [71.0], [71.0, 71.0]):
        assert all(map(math.isnan, over_seeds.t_interval(nothing)))


def test_mean_and_spread_match_numpy() -> None:
    values = [71.3, 72.1, 70.9, 71.0]
    assert over_seeds.mean(values) == pytest.approx(np.mean(values))
    assert over_seeds.spread(values) == pytest.approx(np.std(values, ddof=1))
    assert math.isnan(over_seeds.mean([])) and math.isnan(over_seeds.spread([1.0]))


def test_holm_by_hand() -> None:
    # 0.01*4, 0.02*3, max(0.06, 0.03*2), max(0.06, 0.04*1)
    assert over_seeds.holm([0.02, 0.01, 0.04, 0.03]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert over_seeds.holm([0.5, 0.9]) == [1.0, 1.0]
    assert over_seeds.holm([]) == []
    adjusted = over_seeds.holm([math.nan, 0.02, 0.03])
    assert math.isnan(adjusted[0]) and adjusted[1:] == pytest.approx([0.04, 0.04])


def test_recovered_gap() -> None:
    assert over_seeds.recovered_gap(74, 72, 80) == 0.25
    assert over_seeds.recovered_gap(71, 72, 80) == -0.125
    assert over_seeds.recovered_gap(73, 72, 72) == math.inf


def test_standard_error_of_one_accuracy() -> None:
    assert over_seeds.standard_error(75, 10_000) == pytest.approx(0.433, abs=1e-3)
    assert over_seeds.standard_error(100, 10) == 0
    assert math.isnan(over_seeds.standard_error(75, 0))


@pytest.mark.parametrize("freedom", [2.0, 4.5, 24.0])
def test_detectable_value_has_its_power(freedom: float) -> None:
    least = over_seeds.detectable(0.3, freedom, 0.01)
    quantile = scipy.stats.t.ppf(0.995, freedom)
    assert scipy.stats.nct.sf(quantile, freedom, least / 0.3) == pytest.approx(0.8, abs=1e-4)


def test_detectable_value_without_a_standard_error_is_unknown() -> None:
    assert math.isnan(over_seeds.detectable(math.nan, 2.0))
    assert math.isnan(over_seeds.detectable(0.3, 0.5))


def test_seeds_needed_follow_the_detectable_difference() -> None:
    se, freedom = 0.5, 20.0
    least = over_seeds.detectable(se, freedom)
    assert over_seeds.seeds_needed(se, freedom, 3, least) == 3
    assert over_seeds.seeds_needed(se, freedom, 3, least / 2) == 12
    assert over_seeds.seeds_needed(se, freedom, 3, -least / 2) == 12
    assert over_seeds.seeds_needed(se, freedom, 3, least / 2.01) == 13
    assert over_seeds.seeds_needed(se, freedom, 3, 10 * least) == 3  # never fewer than there are
    more = over_seeds.seeds_needed(se, freedom, 3, least / 2, over_seeds.ALPHA / 26)
    adjusted = over_seeds.detectable(se, freedom, over_seeds.ALPHA / 26)
    assert more == math.ceil(3 * (2 * adjusted / least) ** 2)


def test_seeds_needed_are_unknown_without_a_standard_error() -> None:
    assert math.isnan(over_seeds.seeds_needed(math.nan, math.nan, 1, 1.0))
    assert math.isnan(over_seeds.seeds_needed(0.5, 4.0, 3, math.nan))
    assert over_seeds.seeds_needed(0.5, 4.0, 3, 0.0) == math.inf


@given(st.floats(0.01, 10), st.floats(1, 100), st.integers(2, 20), st.floats(0.01, 10))
def test_seeds_needed_suffice_and_one_less_does_not(
    se: float, freedom: float, n: int, target: float
) -> None:
    seeds = over_seeds.seeds_needed(se, freedom, n, target)
    least = over_seeds.detectable(se, freedom)
    assert seeds >= n and seeds == int(seeds)
    assert least * math.sqrt(n / seeds) <= target * (1 + 1e-9)
    if seeds > n:
        assert least * math.sqrt(n / (seeds - 1)) > target * (1 - 1e-9)
