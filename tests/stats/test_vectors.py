"""The statistics' test vectors, computed by two independent programs.

``KDBENCH_VECTORS`` names another folder of the same form.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from kdbench.stats.contrasts import OverPairs, PairStatistics, other_pairs, over, pair
from kdbench.stats.paired_differences import Contrast, Contrasts
from kdbench.stats.recommendation import recommend
from kdbench.stats.standings import Standing
from kdbench.stats.sweep_choice import choose

SHIPPED = Path(__file__).parent / "vectors"
FOLDER = Path(os.environ.get("KDBENCH_VECTORS", SHIPPED))
FILES = sorted(FOLDER.iterdir())
EXACT, PRIOR = 1e-8, 1e-6
"""Relative tolerances; the prior's is wider, since its numbers come from an iteration."""
EXPLANATIONS = {"name", "why"}
RIVALS = 8
"""Above this number of rows a file has only contrasts with the first or the highest row."""


def test_there_are_vectors() -> None:
    assert len(FILES) >= 34, FOLDER


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_vector(path: Path) -> None:
    given = json.loads(path.read_text())
    expect = given.pop("expect")
    if "scores" in given:
        _check_sweep(given, expect)
    else:
        _check_pairs(given, expect)
    assert not set(given) - EXPLANATIONS, f"{path.name}: no test of {sorted(given)}"
    assert not expect, f"{path.name}: no test of {sorted(expect)}"


def _accuracies(rows: Mapping[str, Mapping[str, float]]) -> dict[str, dict[int, float]]:
    return {row: {int(seed): v for seed, v in seeds.items()} for row, seeds in rows.items()}


def _check_sweep(given: dict[str, Any], expect: dict[str, Any]) -> None:
    values = given.pop("values")
    choice = choose(values, [_accuracies(rows) for rows in given.pop("scores")])
    assert choice.best is not None and choice.simplest is not None
    assert values[choice.best] == expect.pop("best")
    assert values[choice.simplest] == expect.pop("simplest")
    assert choice.edge == expect.pop("edge")
    _same(choice.mean, expect.pop("mean"))
    _same(choice.se, expect.pop("se"))


def _check_pairs(given: dict[str, Any], expect: dict[str, Any]) -> None:
    pairs = {str(i): pair(_accuracies(rows)) for i, rows in enumerate(given.pop("pairs"))}
    compared = over(pairs)
    for ours, theirs in zip(pairs.values(), expect.pop("pairs"), strict=True):
        _check_pair(ours, theirs, standings=True)
    _check_over(compared, expect.pop("over"))
    other, expected = other_pairs(pairs), expect.pop("other_pairs")
    assert (other is None) == (expected is None)
    if other is not None:
        _check_pair(other, expected, standings=False)
    if "advice" in expect:
        _check_advice(pairs, compared, given, expect.pop("advice"))


def _check_pair(ours: PairStatistics, theirs: dict[str, Any], *, standings: bool) -> None:
    _close(ours.d0, theirs.pop("d0"), PRIOR)
    _close(ours.s0_sq, theirs.pop("s0_sq"), PRIOR)
    assert sorted(ours.noisy) == sorted(theirs.pop("noisy"))
    if standings:
        _close(ours.typical, theirs.pop("typical"), PRIOR)
        assert list(ours.untested) == theirs.pop("untested")
        _same(ours.means, theirs.pop("means"))
        _same(ours.sds, theirs.pop("sds"))
        _check_standings(ours.standings, theirs.pop("standings"))
    _check_contrasts(ours.contrasts, theirs.pop("contrasts"), len(ours.means))
    assert not theirs, f"no test of {sorted(theirs)}"


def _check_over(ours: OverPairs, theirs: dict[str, Any]) -> None:
    assert list(ours.complete) == theirs.pop("complete")
    rows = {row for key in ours.contrasts for row in key}
    _check_contrasts(ours.contrasts, theirs.pop("contrasts"), len(rows))
    _check_standings(ours.standings, theirs.pop("standings"))
    assert not theirs, f"no test of {sorted(theirs)}"


def _check_contrasts(ours: Contrasts, theirs: Iterable[dict[str, Any]], rows: int) -> None:
    seen = 0
    for expected in theirs:
        contrast = ours[expected.pop("row"), expected.pop("other")]
        _check_contrast(contrast, expected)
        seen += 1
    assert seen == len(list(ours.once())) if rows <= RIVALS else seen >= rows - 1


def _check_contrast(contrast: Contrast, expected: dict[str, Any]) -> None:
    assert contrast.pairs == expected.pop("pairs")
    assert contrast.n == expected.pop("n")
    assert contrast.told == expected.pop("told")
    for name in ("diff", "se", "df", "low", "high", "p", "p_adj"):
        _close(getattr(contrast, name), expected.pop(name))
    assert not expected, f"no test of {sorted(expected)}"


def _check_standings(
    ours: Mapping[str, Standing] | None, theirs: list[dict[str, Any]] | None
) -> None:
    assert (ours is None) == (theirs is None)
    for expected in theirs or ():
        assert ours is not None
        standing = ours[expected.pop("row")]
        for name in ("rank_low", "rank_high", "leading"):
            assert getattr(standing, name) == expected.pop(name)
        _close(standing.behind, expected.pop("behind"))
        assert not expected, f"no test of {sorted(expected)}"


def _check_advice(
    pairs: Mapping[str, PairStatistics],
    compared: OverPairs,
    given: dict[str, Any],
    expected: dict[str, Any],
) -> None:
    advice = recommend(
        pairs,
        compared,
        times=given.pop("times"),
        student=given.pop("student"),
        baseline=given.pop("baseline"),
        troubled=given.pop("troubled"),
    )
    assert advice.state == expected.pop("state")
    assert advice.leader == expected.pop("leader")
    assert list(advice.shortlist) == expected.pop("shortlist")
    assert list(advice.named) == expected.pop("named")
    assert advice.cheaper == expected.pop("cheaper")
    assert advice.shade == expected.pop("shade")
    assert not expected, f"no test of {sorted(expected)}"


def _same(ours: Mapping[str, float], theirs: Mapping[str, float | None]) -> None:
    assert set(ours) == set(theirs)
    for row, value in theirs.items():
        _close(ours[row], value)


def _close(ours: float, theirs: float | None, tolerance: float = EXACT) -> None:
    """Compare with a relative tolerance; differences of rounding errors have an absolute one."""
    if theirs is None:
        assert math.isnan(ours)
    else:
        assert ours == pytest.approx(theirs, rel=tolerance, abs=1e-12)
