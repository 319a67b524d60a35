import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from kdbench.grid import published
from kdbench.stats import bootstrap, over_pairs, over_seeds
from kdbench.stats.over_pairs import ValueWithInterval

SCORES = st.lists(st.floats(0, 100).map(lambda x: round(x, 2)), min_size=2, max_size=5)


def grid(pairs: int, seeds: int, methods: int, of: int = 0) -> list[np.ndarray]:
    draw = np.random.default_rng(of)
    return [draw.normal(70, 1, (seeds, methods)) + draw.normal(0, 3) for _ in range(pairs)]


@pytest.mark.parametrize("n", range(1, 8))
def test_resamples_of_few_seeds_are_complete(n: int) -> None:
    weights, probability = bootstrap.resamples(n)
    assert len(weights) == math.comb(2 * n - 1, n)
    assert probability.sum() == pytest.approx(1, rel=1e-12)
    assert weights.sum(1) == pytest.approx(1, rel=1e-12)
    if n <= 5:
        brute: dict[tuple[int, ...], int] = {}
        for one in itertools.product(range(n), repeat=n):
            key = tuple(np.bincount(one, minlength=n).tolist())
            brute[key] = brute.get(key, 0) + 1
        enumerated = {tuple(np.rint(row * n).astype(int).tolist()): p for row, p in
                 zip(weights, probability, strict=True)}  # fmt: skip
        assert enumerated == pytest.approx(
            {key: ways / n**n for key, ways in brute.items()}, rel=1e-12
        )


def test_resamples_of_many_seeds_are_random_and_reproducible() -> None:
    weights, probability = bootstrap.resamples(12)
    assert weights.shape == (bootstrap.RESAMPLES, 12)
    assert probability.sum() == pytest.approx(1, rel=1e-12)
    bootstrap.resamples.cache_clear()
    assert (bootstrap.resamples(12)[0] == weights).all()


def test_draws_follow_the_probabilities() -> None:
    _, probability = bootstrap.resamples(3)
    counts = np.bincount(bootstrap.draws(0, 3), minlength=len(probability))
    assert scipy.stats.chisquare(counts, probability * bootstrap.RESAMPLES).pvalue > 1e-3
    assert (bootstrap.draws(0, 3) != bootstrap.draws(1, 3)).any()


def test_interval_keeps_infinities_and_is_nan_with_nan() -> None:
    samples = np.arange(1000.0)
    assert tuple(map(float, bootstrap.interval(samples))) == (24.0, 974.0)
    samples[-100:] = np.inf
    assert tuple(map(float, bootstrap.interval(samples))) == (24.0, np.inf)
    samples[3] = np.nan
    assert np.isnan(bootstrap.interval(samples)).all()


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8))
def test_ranks_match_scipy(values: list[int]) -> None:
    array = np.array(values, dtype=float)
    assert over_pairs.ranks(array) == pytest.approx(scipy.stats.rankdata(-array))


def test_average_ranks_match_plain_loops() -> None:
    pairs = grid(3, 4, 5)
    plain = np.mean([scipy.stats.rankdata(-pair.mean(0)) for pair in pairs], axis=0)
    assert over_pairs.average_ranks(pairs) == pytest.approx(plain)


def test_rounding_errors_do_not_break_ties() -> None:
    a, b = [90.1, 90.2, 90.3], [90.3, 90.1, 90.2]
    assert over_pairs.average_ranks([np.array([a, b]).T]) == [1.5, 1.5]


def test_one_seed_has_no_interval() -> None:
    assert math.isnan(over_pairs.interquartile_mean([[1.0, 2.0], [3.0]]).low)
    [nothing] = over_pairs.probability_of_improvement([(np.array([[2.0]]), np.array([1.0]))])
    assert nothing.value == 1.0 and math.isnan(nothing.low)


@given(st.lists(SCORES, min_size=1, max_size=6))
def test_iqm_matches_scipys_trimmed_mean(tasks: list[list[float]]) -> None:
    every = np.concatenate(tasks)
    estimate = over_pairs.interquartile_mean(tasks)
    assert estimate.value == pytest.approx(scipy.stats.trim_mean(every, 0.25))
    assert math.isnan(estimate.low) == (len(tasks) < bootstrap.FEWEST)
    if len(tasks) < bootstrap.FEWEST:
        return
    assert estimate.low <= estimate.high
    assert every.min() - 1e-9 <= estimate.low and estimate.high <= every.max() + 1e-9


def test_iqm_interval_matches_a_stratified_bootstrap() -> None:
    tasks = [list(pair[:, 0]) for pair in grid(5, 5, 1, of=3)]
    estimate = over_pairs.interquartile_mean(tasks)
    counts = over_pairs._counts((5,) * 5).T
    assert (counts.reshape(-1, 5, 5).sum(2) == 5).all()
    every = np.concatenate(tasks)
    samples = [scipy.stats.trim_mean(np.repeat(every, row), 0.25) for row in counts]
    assert estimate.low == pytest.approx(
        np.quantile(samples, 0.025, method="inverted_cdf"), rel=1e-12
    )
    assert estimate.high == pytest.approx(
        np.quantile(samples, 0.975, method="inverted_cdf"), rel=1e-12
    )
    generator = np.random.default_rng(1)
    other = [
        scipy.stats.trim_mean(np.concatenate([generator.choice(t, 5) for t in tasks]), 0.25)
        for _ in range(4000)
    ]
    width = estimate.high - estimate.low
    assert estimate.low == pytest.approx(np.quantile(other, 0.025), abs=0.1 * width)
    assert estimate.high == pytest.approx(np.quantile(other, 0.975), abs=0.1 * width)


@given(SCORES, SCORES)
def test_probability_of_improvement_matches_mann_whitney(a: list[float], b: list[float]) -> None:
    u = scipy.stats.mannwhitneyu(a, b, method="asymptotic").statistic
    estimate = over_pairs.beats(np.array(a)[:, None], np.array(b)).mean()
    assert estimate == pytest.approx(u / len(a) / len(b))


def test_probability_of_improvement_is_a_mean_over_pairs() -> None:
    draw = grid(5, 5, 3)
    pairs = [(pair[:, 0], pair[:, 1]) for pair in draw]
    estimate, other = over_pairs.probability_of_improvement(
        [(pair[:, ::2], pair[:, 1]) for pair in draw]
    )
    assert other != estimate
    each = [scipy.stats.mannwhitneyu(a, b).statistic / 25 for a, b in pairs]
    assert estimate.value == pytest.approx(np.mean(each))
    samples = []
    generator = np.random.default_rng(1)
    for _ in range(2000):
        drawn = []
        for a, b in pairs:
            at = generator.integers(0, 5, 5)
            drawn.append(scipy.stats.mannwhitneyu(a[at], b[at], method="asymptotic").statistic / 25)
        samples.append(np.mean(drawn))
    assert estimate.low == pytest.approx(np.quantile(samples, 0.025), abs=0.03)
    assert estimate.high == pytest.approx(np.quantile(samples, 0.975), abs=0.03)
    sure = over_pairs.probability_of_improvement([(a[:, None] + 100, b) for a, b in pairs])
    assert sure == [ValueWithInterval(1.0, 1.0, 1.0)]


def test_ari_matches_the_paper_and_has_an_interval() -> None:
    paper = "SemCKD (AAAI 2021)/Table 1"
    names = [
        ("resnet32x4", "vgg8"), ("resnet32x4", "vgg13"), ("vgg13", "ShuffleV2"),
        ("resnet32x4", "ShuffleV2"), ("wrn_40_2", "MobileNetV2"), ("vgg13", "vgg8"),
        ("resnet32x4", "resnet8x4"),
    ]  # fmt: skip
    pairs = []
    for pair in names:
        row = [published.lookup(paper, m, *pair) for m in ("semckd", "kd", "student")]
        reference, kd, student = (np.array([one.mean] * 3) for one in row if one)
        pairs.append((reference, kd[:, None], student))
    [estimate] = over_pairs.average_relative_improvement(pairs)
    assert estimate.value == pytest.approx(72.57, abs=0.01)
    # Seeds that are all the same leave nothing to draw.
    assert (estimate.low, estimate.high) == pytest.approx((estimate.value, estimate.value))


def test_ari_interval_matches_plain_loops() -> None:
    pairs = []
    for pair in grid(5, 3, 3):
        shift = np.array([8.0, 5.0, 0.0]) - pair.mean(0)
        pairs.append(tuple((pair + shift).T))
    [estimate] = over_pairs.average_relative_improvement([(r, m[:, None], s) for r, m, s in pairs])
    samples = []
    for one in np.random.default_rng(1).integers(0, 3, (4000, 5, 3)):
        means = [
            [side[list(at)].mean() for side in pair] for pair, at in zip(pairs, one, strict=True)
        ]
        samples.append(over_seeds.average_relative_improvement(*zip(*means, strict=True)))
    low, high = np.quantile(samples, [0.025, 0.975])
    assert estimate.value == pytest.approx(60.0)
    assert (estimate.low, estimate.high) == pytest.approx((low, high), rel=0.1)


def test_ari_interval_is_unbounded_if_the_gain_may_be_0() -> None:
    reference, student = np.array([75.0, 75.2, 75.1]), np.array([70.0, 70.4, 69.8])
    at_student = np.array([70.0, 70.5, 69.7])
    both = np.array([at_student, student]).T
    estimate, same = over_pairs.average_relative_improvement([(reference, both, student)] * 5)
    assert estimate.high == math.inf and same.value == math.inf
    [same] = over_pairs.average_relative_improvement([(student, student[:, None], student)] * 5)
    assert math.isnan(same.value) and (same.low, same.high) == (-math.inf, math.inf)


@pytest.mark.parametrize(
    ("differences", "expected"),
    [([0.3, 0.2, -0.2, -0.21], (1, 2, 1)), ([0.1 + 0.1], (0, 1, 0)), ([], (0, 0, 0))],
)
def test_wins_ties_and_losses(differences: list[float], expected: tuple[int, int, int]) -> None:
    assert over_pairs.wins(differences) == expected


@settings(max_examples=25)
@given(st.integers(1, 4), st.integers(2, 4), st.integers(2, 4), st.integers(0, 99))
def test_offset_shared_by_all_methods_changes_no_rank(p: int, s: int, m: int, of: int) -> None:
    pairs = grid(p, s, m, of)
    moved = [pair + np.arange(s)[:, None] * 7.0 for pair in pairs]
    ranks = over_pairs.average_ranks(pairs)
    assert ranks == over_pairs.average_ranks(moved)
    assert sum(ranks) == pytest.approx(m * (m + 1) / 2)
