"""Comparisons of all rows: their symmetries, and the cases at their edges."""

import math
from collections.abc import Mapping
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdbench.stats.contrasts import OverPairs, PairStatistics, other_pairs, over, pair
from kdbench.stats.paired_differences import Contrast, Contrasts

Table = dict[str, dict[int, float]]

ACCURACIES = st.integers(0, 400).map(lambda k: 60 + k / 40)
"""Coarse, as with a small test set: equal values and equal differences occur."""


@st.composite
def tables(draw: st.DrawFn, least: int = 1) -> Table:
    """Draw rows with results for all seeds, for some or for none."""
    rows = draw(st.integers(least, 9))
    seeds = draw(st.integers(1, 5))
    return {
        f"row{i}": draw(
            st.dictionaries(st.integers(0, seeds - 1), ACCURACIES, max_size=seeds)
            if draw(st.integers(0, 4)) == 0
            else st.fixed_dictionaries(dict.fromkeys(range(seeds), ACCURACIES))
        )
        for i in range(rows)
    }


@st.composite
def grids(draw: st.DrawFn) -> dict[str, Table]:
    """Draw pairs that may lack rows."""
    count = draw(st.integers(1, 5))
    return {f"pair{i}": draw(tables()) for i in range(count)}


def _compare(grid: Mapping[str, Table]) -> OverPairs:
    return over({name: pair(table) for name, table in grid.items()})


def _values(contrast: Contrast) -> list[float]:
    return [contrast.diff, contrast.se, contrast.df, contrast.low, contrast.high, contrast.p_adj]


def _same(one: Contrasts, other: Contrasts) -> None:
    assert set(one) == set(other)
    for key, contrast in one.items():
        expected = _values(other[key])
        assert _values(contrast) == pytest.approx(expected, rel=1e-8, abs=1e-8, nan_ok=True)
        assert (contrast.pairs, contrast.n) == (other[key].pairs, other[key].n)


def _same_places(one: OverPairs | PairStatistics, other: OverPairs | PairStatistics) -> None:
    _same(one.contrasts, other.contrasts)
    assert (one.standings is None) == (other.standings is None)
    for row, standing in (one.standings or {}).items():
        assert other.standings is not None
        place = other.standings[row]
        assert (standing.rank_low, standing.rank_high) == (place.rank_low, place.rank_high)
        assert standing.leading == place.leading
        assert standing.behind == pytest.approx(place.behind, rel=1e-8, abs=1e-8, nan_ok=True)


@given(tables(), st.randoms())
def test_order_of_rows_and_names_of_seeds_do_not_matter(table: Table, random: object) -> None:
    rows = sorted(table, key=lambda row: hash((row, repr(random))))
    other = {row: {10 - seed: v for seed, v in reversed(table[row].items())} for row in rows}
    _same_places(pair(table), pair(other))


@given(tables(), st.integers(-5, 5), st.integers(0, 4))
def test_a_constant_added_to_a_seed_changes_nothing_else(
    table: Table, constant: int, seed: int
) -> None:
    moved = {row: {s: v + constant * (s == seed) for s, v in t.items()} for row, t in table.items()}
    _same(pair(table).contrasts, pair(moved).contrasts)


@given(tables(), st.integers(-5, 5))
def test_a_constant_added_to_all_rows_changes_nothing_else(table: Table, constant: int) -> None:
    moved = {row: {seed: v + constant for seed, v in t.items()} for row, t in table.items()}
    _same_places(pair(table), pair(moved))


@given(grids())
def test_order_of_pairs_does_not_matter(grid: dict[str, Table]) -> None:
    one, other = _compare(grid), _compare(dict(reversed(grid.items())))
    _same_places(one, other)
    assert set(one.pairs) == set(other.pairs)


@given(grids())
def test_differences_are_symmetric(grid: dict[str, Table]) -> None:
    compared = _compare(grid)
    for (row, other), contrast in compared.contrasts.items():
        back = compared.contrasts[other, row]
        assert contrast.told == back.told
        assert (contrast.better, contrast.worse) == (back.worse, back.better)
        assert _values(contrast) == pytest.approx(_values(back.reversed()), nan_ok=True)


@given(grids())
def test_places_do_not_contradict_each_other(grid: dict[str, Table]) -> None:
    compared = _compare(grid)
    placed = compared.standings or {}
    leading = {row for row, standing in placed.items() if standing.leading}
    assert not placed or leading
    for row, standing in placed.items():
        assert 1 <= standing.rank_low <= standing.rank_high <= len(placed)
        assert standing.leading == (standing.rank_low == 1)
        assert not standing.behind < 0
        if row in leading:
            assert not any(compared.contrasts[row, other].worse for other in leading - {row})
            if len(leading) == 1:
                assert standing.behind == 0


@given(tables(least=4))
def test_interval_holds_zero_where_p_is_above_five_percent(table: Table) -> None:
    for contrast in pair(table).contrasts.values():
        if contrast.known:
            assert (contrast.low <= 0 <= contrast.high) == (contrast.p >= 0.05)
            assert contrast.p <= contrast.p_adj <= 1


@given(tables(least=4))
def test_a_difference_does_not_depend_on_other_rows(table: Table) -> None:
    first, second = list(table)[:2]
    alone = pair({row: table[row] for row in (first, second)}).contrasts.get((first, second))
    among = pair(table).contrasts.get((first, second))
    assert (alone and alone.diff) == (among and among.diff)


@settings(max_examples=20)
@given(st.lists(st.tuples(ACCURACIES, ACCURACIES, ACCURACIES), min_size=2, max_size=3))
def test_below_four_rows_is_a_paired_t_test(rows: list[tuple[float, float, float]]) -> None:
    from scipy.stats import ttest_rel

    compared = pair({f"row{i}": dict(enumerate(values)) for i, values in enumerate(rows)})
    for (one, left), (two, right) in pairwise(
        (f"row{i}", list(values)) for i, values in enumerate(rows)
    ):
        contrast = compared.contrasts[one, two]
        if contrast.known:
            assert contrast.p == pytest.approx(ttest_rel(left, right).pvalue)
            assert contrast.df == 2


def test_nothing_to_compare() -> None:
    assert pair({}).standings is None
    assert over({}).standings is None
    assert over({"pair": pair({"kd": {}})}).means == {}
    assert not pair({"kd": {0: 50.0, 1: 51.0}}).contrasts
    alone = pair({"kd": {0: 50.0, 1: 51.0}}).standings
    assert alone and alone["kd"].behind == 0


def test_pair_with_one_seed_is_left_out() -> None:
    rows = {"kd": {0: 50.0, 1: 51.0}, "at": {0: 52.0, 1: 52.5}}
    compared = over({"begun": pair({row: {0: v[0]} for row, v in rows.items()}), "two": pair(rows)})
    assert (compared.pairs, compared.left_out) == (("two",), ("begun",))
    assert compared.means == {"kd": 50.5, "at": 52.25}
    assert compared.contrasts["at", "kd"].pairs == 1


def test_mean_over_pairs_without_one_interval_has_none() -> None:
    two = {"kd": {0: 50.0, 1: 51.0}, "at": {0: 52.0, 1: 52.5}, "sp": {0: 51.0, 1: 53.0}}
    compared = over({"one": pair(two), "other": pair(two | {"sp": {0: 51.0}})})
    contrast = compared.contrasts["sp", "kd"]
    assert contrast.pairs == 2 and contrast.n == 1
    assert not contrast.known and math.isnan(contrast.p_adj) and not contrast.told
    assert compared.complete == ("kd", "at")


def test_other_pairs_need_four() -> None:
    one = pair({"kd": {0: 50.0}, "at": {0: 51.0}})
    assert other_pairs({str(i): one for i in range(3)}) is None
    assert other_pairs({str(i): one for i in range(4)}) is not None
