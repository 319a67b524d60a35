"""Sentences of a comparison: one test for each kind."""

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from given_accuracies import statistics, vector
from small_grids import kdbench, mistakes

from kdbench.grid.grid import Report
from kdbench.report.compare import Comparison, compare_rows
from kdbench.report.compare_sentences import as_json, lines, sentence, verdict
from kdbench.runs import archive
from kdbench.runs.evidence import Evidence
from kdbench.stats.aggregate import Aggregate

NAMES = {
    "quick": ["v8w16 -> v5w8", "v8w16 -> r8w8"],
    "demo": ["r8w16 -> r8w3", "r8w16 -> v5w4"],
}
"""Grids of ``results/`` with three seeds, whose accuracies are test vectors."""
ROWS = ("kd", "at", "sp", "vid", "cc", "pkt")


def drawn(shift: dict[str, float], sd: float = 0.05, seeds: int = 3, **changes: Any) -> Aggregate:
    """Return a grid of two pairs whose rows differ by ``shift`` and by noise of ``sd``."""
    generator = np.random.default_rng(7)
    pairs = [
        {
            row: {s: 70.0 + shift.get(row, 0.0) + sd * generator.normal() for s in range(seeds)}
            for row in ROWS
        }
        for _ in range(2)
    ]
    return statistics(pairs, **changes)


def compared(
    aggregate: Aggregate, row: str = "at", other: str = "kd", **changes: Any
) -> Comparison:
    return compare_rows(row, other, aggregate.evidence, **changes)


def ends(comparison: Comparison) -> str:
    contrast = comparison.contrast
    assert contrast
    text = f"{contrast.diff:+.2f} points [{contrast.low:+.2f}, {contrast.high:+.2f}]"
    return text.replace("-", "−") + ", mean of 2 pairs, 3 seeds."


# --- accuracies of committed leaderboards ---


@cache
def of_leaderboard(name: str) -> Evidence:
    return statistics(vector(name)["pairs"], names=NAMES[name]).evidence


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    archive.write(of_leaderboard("quick"), tmp_path / "quick.parquet")
    return tmp_path / "quick.parquet"


@pytest.mark.parametrize(
    ("rows", "name", "expected"),
    [
        (
            ("reviewkd", "kd"),
            "quick",
            "reviewkd is better than kd: +5.53 points [+4.57, +6.48], mean of 2 pairs, 3 seeds. "
            "Among all 27 rows: adjusted p < 0.001.",
        ),
        (
            ("kd", "reviewkd"),
            "quick",
            "kd is worse than reviewkd: −5.53 points [−6.48, −4.57], mean of 2 pairs, 3 seeds. "
            "Among all 27 rows: adjusted p < 0.001.",
        ),
        (
            ("semckd", "kd"),
            "quick",
            "semckd or kd is not settled: +0.47 points [−0.50, +1.44], mean of 2 pairs, 3 seeds. "
            "semckd may be up to 1.44 better, kd up to 0.50. About 26 seeds would settle a "
            "difference of this size, 6 one of 1 point.",
        ),
        (
            ("semckd+at", "kd"),
            "quick",
            "semckd+at is better than kd: +1.06 points [+0.08, +2.03], mean of 2 pairs, 3 seeds. "
            "Picked out of 27 rows, it would not count (adjusted p = 0.89).",
        ),
        (
            ("sp", "kd"),
            "demo",
            "sp or kd is not settled: +1.34 points [−0.41, +3.08], mean of 2 pairs, 3 seeds. "
            "sp may be up to 3.08 better, kd up to 0.41. About 11 seeds would settle a difference "
            "of this size, 19 one of 1 point.",
        ),
    ],
)
def test_sentences_on_committed_leaderboards(
    rows: tuple[str, str], name: str, expected: str
) -> None:
    assert sentence(compare_rows(*rows, of_leaderboard(name))) == expected


def test_command_names_a_noisy_row_and_each_pair(quick: Path) -> None:
    text = kdbench("compare", "ab", "kd", "--from", quick).stdout.splitlines()
    assert text == [
        "ab is better than kd: +3.40 points [+1.17, +5.63], mean of 2 pairs, 3 seeds. "
        "Picked out of 27 rows, it would not count (adjusted p = 0.45).",
        "ab is noisy on v8w16 -> r8w8 (spread 2.51): judged by its own three runs.",
        "  v8w16 -> v5w8: +1.04 [−0.09, +2.16], 3 seeds, df 50.0",
        "  v8w16 -> r8w8: +5.77 [+0.40, +11.13], 3 seeds, df 2.0",
    ]
    assert "noisy" not in kdbench("compare", "sp", "kd", "--from", quick).stdout


@pytest.mark.parametrize("pair", ["v8w16 -> r8w8", "v8w16->r8w8", "v8w16 → r8w8"])
def test_command_compares_on_one_pair(quick: Path, pair: str) -> None:
    text = kdbench("compare", "ab", "kd", "--from", quick, "--pair", pair).stdout.splitlines()
    assert text[0] == (
        "ab is better than kd: +5.77 points [+0.40, +11.13], v8w16 -> r8w8, 3 seeds. Picked out of "
        "27 rows, it would not count (adjusted p = 1)."
    )
    assert text[2:] == ["  v8w16 -> r8w8: +5.77 [+0.40, +11.13], 3 seeds, df 2.0"]


def test_command_refuses_an_unknown_pair(quick: Path) -> None:
    [line] = mistakes("compare", "ab", "kd", "--from", quick, "--pair", "v8w16 -> r8w9")
    assert line == (
        "experiments/fake.yaml: --pair v8w16 -> r8w9: unknown; accepted: v8w16 -> r8w8, "
        "v8w16 -> v5w8 (did you mean v8w16 -> r8w8?)"
    )


def test_json_has_all_numbers(quick: Path) -> None:
    read = json.loads(kdbench("compare", "semckd", "kd", "--from", quick, "--json").stdout)
    assert (read["command"], read["a"], read["b"]) == ("compare", "semckd", "kd")
    assert read["verdict"] == "not settled" and read["within_margin"] is False
    assert read["sentence"].startswith("semckd or kd is not settled: +0.47")
    assert (read["margin"], read["rows"], read["accuracy"]) == (0.2, 27, "test accuracy")
    over = read["over_pairs"]
    assert over["pairs"] == NAMES["quick"] and over["told_apart"] is False
    contrast = compare_rows("semckd", "kd", of_leaderboard("quick")).contrast
    assert contrast
    for key in ("diff", "low", "high", "se", "df", "n", "p", "p_adj"):
        assert over[key] == getattr(contrast, key)
    assert over["seeds_needed"]["alone"] == {"difference_seen": 26.0, "one_point": 6.0}
    assert over["seeds_needed"]["among_all_rows"]["one_point"] > 6
    assert [pair["n"] for pair in read["pairs"]] == [3, 3]
    assert all(pair["sd"] > 0 and pair["df"] > 2 and 0 < pair["p"] <= 1 for pair in read["pairs"])
    noisy = json.loads(kdbench("compare", "ab", "kd", "--from", quick, "--json").stdout)
    assert [pair["noisy"] for pair in noisy["pairs"]] == [[], ["ab"]]


# --- every other kind of sentence ---


def test_better_by_less_than_the_margin() -> None:
    comparison = compared(drawn({"at": 0.1}, sd=0.01))
    assert sentence(comparison) == (
        f"at is better than kd by less than 0.20 points: {ends(comparison)} Among all 6 rows: "
        "adjusted p < 0.001."
    )
    assert as_json(comparison)["within_margin"] is True
    assert verdict(comparison) == "better"


def test_the_same_to_within_the_margin() -> None:
    comparison = compared(drawn({}))
    expected = f"at and kd are the same to within 0.20 points: {ends(comparison)}"
    assert sentence(comparison) == expected
    narrow = compared(drawn({}, report=Report(tie=0.01)))
    assert verdict(narrow) == "not settled"


def test_margin_does_not_make_an_unsettled_difference_the_same() -> None:
    comparison = compared(drawn({}, sd=1.0))
    assert verdict(comparison) == "not settled"
    assert "may be up to" in sentence(comparison) and "the same" not in sentence(comparison)


def test_one_seed_gives_no_interval() -> None:
    comparison = compared(drawn({"at": 1.0}, seeds=1))
    assert comparison.contrast
    assert sentence(comparison) == (
        f"at or kd is not settled: {comparison.contrast.diff:+.2f} points, mean of 2 pairs; one "
        "seed in common: no interval."
    )
    assert lines(comparison)[1].endswith(", 1 seed, no interval")
    assert as_json(comparison)["over_pairs"]["seeds_needed"]["alone"]["one_point"] is not None


def test_equal_differences_give_no_interval() -> None:
    pairs = [{"kd": {0: 70.0, 1: 71.0, 2: 70.5}, "at": {0: 71.0, 1: 72.0, 2: 71.5}}]
    comparison = compared(statistics(pairs))
    assert sentence(comparison) == (
        "at or kd is not settled: +1.00 points, big -> small0; all seeds differ by the same: no "
        "interval."
    )


def test_pair_with_one_seed_in_common_is_named() -> None:
    aggregate = drawn({"at": 1.0})
    pairs = [
        {row: dict(s.accuracies) for row, s in members.items() if row != "teacher"}
        for members in aggregate.summaries.values()
    ]
    pairs[1]["at"] = {0: 71.0}
    comparison = compared(statistics(pairs))
    assert "; one seed in common on big -> small1: no interval." in sentence(comparison)


def test_pair_on_which_nothing_has_an_interval_is_left_out_of_the_mean() -> None:
    pairs = [
        {row: dict(s.accuracies) for row, s in members.items() if row != "teacher"}
        for members in drawn({"at": 1.0}).summaries.values()
    ]
    begun = {row: {0: values[0]} for row, values in pairs[1].items()}
    text = lines(compared(statistics([*pairs, begun])))
    assert ", mean of 2 of 3 pairs, 3 seeds. " in text[0]
    assert text[3].startswith("  big -> small2: ")
    assert text[3].endswith(", 1 seed, no interval, left out of the mean")
    assert ", 1 of 2 pairs, 3 seeds. " in lines(compared(statistics([pairs[0], begun])))[0]


def test_rows_that_cannot_be_compared_give_the_reason() -> None:
    pairs = [{"kd": {0: 70.0, 1: 71.0}, "at": {2: 70.0, 3: 71.0}}]
    comparison = compared(statistics(pairs))
    assert sentence(comparison) == "at and kd cannot be compared: no common seeds."
    assert lines(comparison)[1:] == ["  big -> small0: left out, no common seeds"]
    assert as_json(comparison)["over_pairs"] is None
    nothing = compared(statistics([{"kd": {0: 70.0}}], methods=["at"]))
    assert sentence(nothing) == "at and kd cannot be compared: at is missing."


def test_runs_that_diverged_are_named() -> None:
    pairs = [{"kd": {0: 70.0, 1: 71.0, 2: 70.4}, "at": {0: 71.0, 1: 70.5}}]
    text = lines(compared(statistics(pairs, diverged=["at"])))
    assert "at on big -> small0: 1 of 3 runs diverged; the mean is that of the others." in text


def test_two_rows_have_nothing_to_be_picked_from() -> None:
    pairs = [{"kd": {0: 70.0, 1: 71.0, 2: 70.5}, "at": {0: 75.0, 1: 76.2, 2: 75.4}}]
    text = sentence(compared(statistics(pairs)))
    assert text.startswith("at is better than kd: +5.03 points [") and text.endswith("3 seeds.")


def test_difference_of_zero_needs_more_than_100_seeds() -> None:
    pairs = [{"kd": {0: 70.0, 1: 71.0, 2: 72.0}, "at": {0: 71.0, 1: 70.0, 2: 72.0}}]
    comparison = compared(statistics(pairs))
    assert comparison.contrast and comparison.contrast.diff == 0
    assert " More than 100 seeds would settle a difference of this size, " in sentence(comparison)
    assert math.isinf(as_json(comparison)["over_pairs"]["seeds_needed"]["alone"]["difference_seen"])
