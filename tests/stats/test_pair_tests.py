import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from kdbench.stats import over_seeds, pair_tests


@pytest.mark.parametrize(("pairs", "p"), [(7, 0.015625), (10, 0.001953125), (13, 0.000244140625)])
def test_smallest_p_matches_wilcoxon(pairs: int, p: float) -> None:
    assert pair_tests.smallest_p(pairs) == p
    assert pair_tests.wilcoxon(np.arange(1.0, pairs + 1)) == pytest.approx(p)


@pytest.mark.parametrize(("comparisons", "needed"), [(105, 13), (14, 10), (1, 6)])
def test_pairs_needed(comparisons: int, needed: int) -> None:
    assert pair_tests.pairs_needed(comparisons) == needed
    assert pair_tests.refusal(needed, comparisons, "x") == ""
    assert "At least " in pair_tests.refusal(needed - 1, comparisons, "x")


@given(st.integers(1, 400))
def test_pairs_needed_is_the_first_number_that_can_reject(comparisons: int) -> None:
    needed = pair_tests.pairs_needed(comparisons)
    assert pair_tests.smallest_p(needed) * comparisons < over_seeds.ALPHA
    assert pair_tests.smallest_p(needed - 1) * comparisons >= over_seeds.ALPHA


def test_refusal_states_the_numbers() -> None:
    sentence = pair_tests.refusal(7, 14, "each method with kd")
    assert sentence.startswith("No test of each method with kd over pairs: a Wilcoxon")
    assert "on 7 pairs cannot give a p-value below 2/2^7 = 0.016" in sentence
    assert "for 14 comparisons requires one below 0.05/14 = 0.0036" in sentence
    assert sentence.endswith("At least 10 pairs are needed.")
    assert pair_tests.refusal(0, 0, "nobody") == ""


def test_friedman_matches_scipy() -> None:
    pairs = np.random.default_rng(0).integers(60, 66, (8, 5)).astype(float)
    wanted = scipy.stats.friedmanchisquare(*pairs.T).pvalue
    assert pair_tests.friedman(pairs) == pytest.approx(wanted, rel=1e-12)
    few = pairs[:3, :3]  # whose ranks hardly differ
    wanted = scipy.stats.friedmanchisquare(*few.T).pvalue
    assert pair_tests.friedman(few) == pytest.approx(wanted, rel=1e-12)
    assert np.isnan(pair_tests.friedman(pairs[:, :2])) and np.isnan(pair_tests.friedman(pairs[:1]))
    assert np.isnan(pair_tests.friedman(np.ones((4, 3))))


def test_wilcoxon_matches_all_sign_assignments() -> None:
    values = np.array([0.3, -0.1, 0.5, 0.7, 0.2, -0.4])
    size = scipy.stats.rankdata(abs(values))
    seen = size[values > 0].sum()
    sums = [sum(s for s, up in zip(size, signs, strict=True) if up)
            for signs in itertools.product((0, 1), repeat=6)]  # fmt: skip
    extreme = [abs(x - size.sum() / 2) >= abs(seen - size.sum() / 2) for x in sums]
    assert pair_tests.wilcoxon(values) == pytest.approx(np.mean(extreme))
    assert np.isnan(pair_tests.wilcoxon([0.0, 1e-12]))


@pytest.mark.parametrize("pairs", [pair_tests.EXACT, pair_tests.EXACT + 1, 80])
def test_vectorised_tests_match_single_tests(pairs: int) -> None:
    draw = np.random.default_rng(pairs)
    first = draw.normal([70, 70.8, 71.4], 1, (pairs, 3))
    # One whose differences to another are tied or 0, and one that differs from it in nothing.
    means = np.column_stack([first, first[:, 0] + draw.integers(-1, 2, pairs), first[:, 0]])
    diagram = pair_tests.critical_difference("abcde", means)
    order = ["abcde".index(name) for name in diagram.methods]
    both = list(itertools.combinations(range(5), 2))
    alone = [pair_tests.wilcoxon(means[:, order[i]] - means[:, order[j]]) for i, j in both]
    assert np.isnan(alone).sum() == 1
    for (i, j), p in zip(both, over_seeds.holm(alone), strict=True):
        assert diagram.p[i, j] == (1.0 if np.isnan(p) else p)


def test_critical_difference_of_one_method() -> None:
    diagram = pair_tests.critical_difference(["a"], np.ones((60, 1)))
    assert diagram.p.tolist() == [[1.0]] and diagram.groups == ()


def test_critical_difference_of_clear_effects() -> None:
    draw = np.random.default_rng(0)
    noise = draw.normal(0, 0.1, (14, 4))
    pairs = np.array([70.0, 74.0, 70.0, 78.0]) + noise
    diagram = pair_tests.critical_difference(("a", "b", "c", "d"), pairs)
    assert diagram.methods[:2] == ("d", "b") and set(diagram.methods[2:]) == {"a", "c"}
    assert diagram.ranks[:2] == (1.0, 2.0) and sum(diagram.ranks) == pytest.approx(10)
    assert diagram.groups == ((2, 3),)
    assert diagram.friedman < 1e-6
    both = list(itertools.combinations(range(4), 2))
    order = ["abcd".index(name) for name in diagram.methods]
    ps = [scipy.stats.wilcoxon(pairs[:, order[i]], pairs[:, order[j]]).pvalue for i, j in both]
    # Holm's steps by hand.
    steps = np.maximum.accumulate(np.sort(ps) * np.arange(6, 0, -1)).clip(max=1)
    wanted = dict(zip(np.argsort(ps), steps, strict=True))
    for k, (i, j) in enumerate(both):
        assert diagram.p[i, j] == pytest.approx(wanted[k])


def test_groups_are_as_long_as_possible() -> None:
    p = np.ones((5, 5))
    for i, j in ((0, 2), (0, 3), (0, 4), (1, 4), (2, 4), (3, 4)):
        p[i, j] = p[j, i] = 0.01
    assert pair_tests._groups(p) == ((0, 1), (1, 3))
    assert pair_tests._groups(np.zeros((3, 3))) == ()
    assert pair_tests._groups(np.ones((3, 3))) == ((0, 2),)
