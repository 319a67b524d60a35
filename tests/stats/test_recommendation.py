"""Limits in the choice of methods and of swept values."""

import pytest

from kdbench.stats.contrasts import over, pair
from kdbench.stats.recommendation import Recommendation, recommend
from kdbench.stats.sweep_choice import choose

OFFSETS = ((0.0, 0.1, -0.1), (0.1, -0.1, 0.0), (-0.1, 0.0, 0.1), (0.0, -0.1, 0.1))


def recommended(means: dict[str, float], **given: object) -> Recommendation:
    accuracies = {
        row: {seed: mean + noise for seed, noise in enumerate(OFFSETS[i % 4])}
        for i, (row, mean) in enumerate(means.items())
    }
    pairs = {"a": pair(accuracies)}
    return recommend(pairs, over(pairs), baseline="kd", **{"times": {}} | given)  # type: ignore[arg-type]


@pytest.mark.parametrize(("time", "named"), [(0.89, ("at", "sp")), (0.91, ("at",))])
def test_a_method_is_named_as_faster_from_a_tenth_on(time: float, named: tuple[str, ...]) -> None:
    means = {"kd": 50.0, "at": 60.1, "sp": 60.0, "ft": 50.0}
    given = recommended(means, times={"kd": 1.0, "at": 1.0, "sp": time, "ft": 1.0})
    assert given.named == named


@pytest.mark.parametrize(("troubled", "cheaper"), [((), "ft"), (("ft",), None)])
def test_a_method_with_a_diverged_run_is_not_the_one_for_less_time(
    troubled: tuple[str, ...], cheaper: str | None
) -> None:
    means = {"kd": 50.0, "at": 60.0, "ft": 55.0, "sp": 50.0}
    times = {"kd": 1.0, "at": 1.0, "ft": 0.5, "sp": 1.0}
    assert recommended(means, times=times, troubled=troubled).cheaper == cheaper


@pytest.mark.parametrize(("leading", "shade"), [(2, True), (3, False)])
def test_leading_methods_are_marked_up_to_half(leading: int, shade: bool) -> None:
    means = {f"good{i}": 60.0 for i in range(leading)}
    means |= {"kd": 50.0} | {f"bad{i}": 50.0 for i in range(3 - leading)}
    given = recommended(means)
    assert len(given.states("leading")) == leading
    assert given.shade is shade


def test_means_that_differ_by_rounding_are_equal_and_the_smaller_value_is_best() -> None:
    scores = {"low": {0: 50.0, 1: 51.0}, "high": {0: 50.0 + 1e-12, 1: 51.0 + 1e-12}}
    assert choose({"low": 1.0, "high": 10.0}, [scores]).best == "low"


@pytest.mark.parametrize(("gap", "simplest"), [(0.99, "low"), (1.05, "high")])
def test_a_value_within_one_standard_error_is_simple_enough(gap: float, simplest: str) -> None:
    # The differences have a standard deviation of 1, and their mean a standard error of 3 ** -0.5.
    high = {0: 50.0, 1: 51.0, 2: 52.0}
    shifts = (1.0, -1.0, 0.0)
    low = {seed: high[seed] - gap * 3**-0.5 + shifts[seed] for seed in high}
    assert choose({"low": 1.0, "high": 10.0}, [{"low": low, "high": high}]).simplest == simplest


def test_a_student_without_results_on_a_pair_still_has_to_be_beaten() -> None:
    first = {"kd": [50.0, 50.3, 49.8], "at": [60.0, 60.1, 60.3], "ft": [49.0, 49.5, 49.1]}
    second = first | {"student": [70.0, 70.2, 69.9]}
    pairs = {
        name: pair({row: dict(enumerate(values)) for row, values in rows.items()})
        for name, rows in (("a", first), ("b", second))
    }
    given = recommend(pairs, over(pairs), times={}, student="student", baseline="kd")
    assert given.leader is None
    assert given.why["at"] == ("student",)
