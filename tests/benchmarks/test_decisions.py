"""The simulation of the rules that decide: it runs, computes the rule, and can fail."""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student
from scipy.stats import ttest_rel

from benchmarks.decisions import __main__ as command
from benchmarks.decisions import alternatives, committed, rule, scenarios, simulation
from benchmarks.decisions.alternatives import POOLED, RULES, THIS
from benchmarks.decisions.error_rates import SMALLEST, rates
from benchmarks.decisions.scenarios import Array, Scenario
from benchmarks.decisions.simulation import ROWS, Flags, Setting, simulate
from kdbench.stats import contrasts, over_seeds
from kdbench.stats.paired_differences import Contrast


@cache
def of_records() -> list[committed.Residuals]:
    return committed.read()[0]


ALL = (*scenarios.first_table(of_records()), scenarios.COLLAPSE, *scenarios.UNSEEN)
NAMED = {scenario.name: scenario for scenario in ALL}


def module(accuracies: Array) -> tuple[dict[str, contrasts.PairStatistics], contrasts.OverPairs]:
    """Apply kdbench's own modules to accuracies [P, M, N]."""
    pairs = {
        str(p): contrasts.pair({str(i): dict(enumerate(y)) for i, y in enumerate(one.tolist())})
        for p, one in enumerate(accuracies)
    }
    return pairs, contrasts.over(pairs)


# --- the vectorised rule is kdbench's -----------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    scenario=st.sampled_from(ALL),
    rows=st.integers(2, ROWS),
    seeds=st.integers(2, 5),
    pairs=st.integers(1, 3),
    number=st.integers(0, 2**32 - 1),
)
def test_vectorised_rule_is_the_module(
    scenario: Scenario, rows: int, seeds: int, pairs: int, number: int
) -> None:
    rng = np.random.default_rng(number)
    accuracies = 90 + scenario.draw(rng, (2, pairs, ROWS, seeds))[:, :, :rows]
    for one, whole in zip(accuracies, compare(accuracies), strict=True):
        check_same(one, *whole)


def compare(accuracies: Array) -> list[tuple[rule.Estimates, simulation.Standings, Array]]:
    """Return estimates, standings and noisy rows [P, M] of each grid."""
    d = rule.differences(accuracies)
    e = rule.this_rule(d)
    placed = simulation.standings(e, accuracies.shape[2])
    noisy = rule.noise(d, rule.fit_prior(d)) < rule.NOISY
    return [
        (
            rule.Estimates(*(values[grid] for values in e)),
            simulation.Standings(*(values[grid] for values in placed)),
            noisy[grid],
        )
        for grid in range(len(accuracies))
    ]


def check_same(
    accuracies: Array, e: rule.Estimates, placed: simulation.Standings, noisy: Array
) -> None:
    pairs, over = module(accuracies)
    rows = accuracies.shape[1]
    for name, flags in zip(pairs, noisy, strict=True):
        assert pairs[name].noisy == tuple(str(i) for i in range(rows) if flags[i])
    p, half = alternatives.p_values(e), alternatives.half_widths(e)
    for k, (i, j) in enumerate(zip(*rule.order(rows), strict=True)):
        theirs: Contrast = over.contrasts[str(i), str(j)]
        ours = (e.diff[k], e.se[k], e.df[k], p[k], e.diff[k] - half[k], e.diff[k] + half[k])
        expected = (theirs.diff, theirs.se, theirs.df, theirs.p, theirs.low, theirs.high)
        assert ours == pytest.approx(expected, rel=1e-9, abs=1e-9, nan_ok=True)
        assert theirs.told == (p[k] * (rows - 1) < 0.05)
    assert over.standings is not None
    for i in range(rows):
        standing = over.standings[str(i)]
        assert standing.leading == placed.leading[i]
        assert (standing.rank_low, standing.rank_high) == (placed.rank_low[i], placed.rank_high[i])
        assert standing.behind == pytest.approx(placed.behind[i], rel=1e-9, abs=1e-9)


def test_comparison_includes_noisy_rows_and_both_kinds_of_prior() -> None:
    d = rule.differences(next(simulate(scenarios.NOISY, SMALLEST, 200)))
    prior = rule.fit_prior(d)
    noisy = rule.noise(d, prior) < rule.NOISY
    assert noisy[:, 0, scenarios.ODD_ONE].mean() > 0.5
    cap = 2 * (ROWS - 3)
    assert (prior.d0 == cap).any() and (prior.d0 < cap).any()


# --- the tables ---------------------------------------------------------------------------------


def test_command_prints_every_table(capsys: pytest.CaptureFixture[str]) -> None:
    command.main(["--grids", "8"])
    text = capsys.readouterr().out
    assert text.count("| --- |") >= len(command.TABLES)
    assert "nan" not in text
    for name in command.TABLES:
        assert f"({name}: " in text
    for name in (*RULES, alternatives.DUNNETT, "noisy base", "three noisy", "3 seeds, 7 pairs"):
        assert name in text


def page_tables() -> list[list[list[str]]]:
    """Return the cells of the tables of docs/statistics.md that the command prints."""
    evidence = (committed.ROOT / "docs" / "statistics.md").read_text().partition("## Evidence")[2]
    blocks = [block for block in evidence.split("\n\n") if block.startswith("|")]
    return [[line.strip("| ").split(" | ") for line in block.splitlines()] for block in blocks]


def test_page_has_the_tables_that_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """The same columns and rows; the numbers take minutes."""
    command.main(["--grids", "4"])
    printed = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    tables = page_tables()
    assert len(tables) >= 5
    for head, line, *rows in tables:
        assert head in printed and set(line[0]) <= {"|", "-"}
        for row in rows:
            assert any(row[0] == one[0] and len(row) == len(one) for one in printed), row[0]


def test_same_table_again(capsys: pytest.CaptureFixture[str]) -> None:
    def printed(tables: Sequence[str]) -> list[str]:
        command.main(["--grids", "20", "--only", *tables])
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]

    assert printed(["limits"]) == printed(["unseen", "limits"])[-len(printed(["limits"])) :]


@pytest.mark.parametrize("words", [["--only", "nothing"], ["--grids", "0"]])
def test_wrong_option_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(words)
    assert stopped.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_without_records_a_sentence_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committed, "read", lambda: ([], list(committed.GRIDS)))
    command.main(["--grids", "4", "--only", "familywise", "power"])
    text = capsys.readouterr().out
    assert "results/table1-quick has no records" in text
    assert "| records" not in text and "normal" in text


def test_residuals_of_records_have_variance_one() -> None:
    residuals = of_records()
    assert len(residuals) == 4
    for one in residuals:
        rows, seeds = one.shape
        assert rows >= ROWS and seeds == len(committed.SEEDS)
        assert (one**2).sum() / ((rows - 1) * (seeds - 1)) == pytest.approx(1)
        assert abs(one.mean(0)).max() < 1e-9 > abs(one.mean(1)).max()


# --- the other rules ----------------------------------------------------------------------------


def test_pooled_is_twice_the_residual_mean_square() -> None:
    y = np.random.default_rng(1).normal(90, 1, (3, 1, 7, 4))
    left = y - y.mean(3, keepdims=True) - y.mean(2, keepdims=True) + y.mean((2, 3), keepdims=True)
    square = (left**2).sum((2, 3))[:, 0] / (6 * 3)
    e = alternatives.pooled(rule.differences(y))
    assert e.se == pytest.approx(np.broadcast_to(np.sqrt(2 * square / 4)[:, None], e.se.shape))
    assert (e.df == 18).all()


def test_holm_is_that_of_stats() -> None:
    p = np.random.default_rng(2).random((5, 9)) ** 4
    for row, adjusted in zip(p, alternatives.holm(p), strict=True):
        assert adjusted == pytest.approx(over_seeds.holm(row.tolist()))


def test_dunnett_of_one_comparison_is_students_t() -> None:
    df = np.array([2.0, 7.0, 50.0])
    for sides in (1, 2):
        found = alternatives.dunnett_critical(df, 1, sides)
        assert found == pytest.approx(student.ppf(1 - 0.05 / sides, df), rel=2e-3)


def test_dunnett_of_many_comparisons_is_the_quantile_of_the_largest() -> None:
    rng = np.random.default_rng(3)
    z = rng.standard_normal((100_000, 1)) + rng.standard_normal((100_000, 9))
    t = z / np.sqrt(2 * rng.chisquare(8, (100_000, 1)) / 8)
    (two,) = alternatives.dunnett_critical(np.array([8.0]), 9)
    (one,) = alternatives.dunnett_critical(np.array([8.0]), 9, sides=1)
    assert (abs(t).max(1) > two).mean() == pytest.approx(0.05, abs=0.003)
    assert (t.max(1) > one).mean() == pytest.approx(0.05, abs=0.003)


def test_false_discoveries_by_a_plain_loop() -> None:
    y = next(simulate(NAMED["normal"], SMALLEST, 40, np.repeat([0.0, 4.0], 13)))
    e = simulation.to_baseline(rule.this_rule(rule.differences(y)), ROWS)
    null = np.repeat([True, False], [12, 13])
    shares = []
    for row in alternatives.p_values(e):
        ordered = sorted(range(25), key=lambda k: row[k])
        fit = [n for n, k in enumerate(ordered, 1) if row[k] <= 0.05 * n / 25]
        found = ordered[: max(fit, default=0)]
        shares.append(sum(null[k] for k in found) / max(len(found), 1))
    assert simulation.false_discoveries(e, null) == pytest.approx(shares)
    assert max(shares) > 0


def test_former_group_by_a_plain_loop() -> None:
    y = next(simulate(NAMED["normal"], SMALLEST, 30, np.linspace(0, -12, ROWS)))
    e = alternatives.paired_t(rule.differences(y))
    sizes = set()
    for values, leading in zip(y[:, 0], simulation.leading_before(e, ROWS), strict=True):
        best = int(values.mean(1).argmax())
        others = [i for i in range(ROWS) if i != best]
        p = over_seeds.holm([float(ttest_rel(values[i], values[best]).pvalue) for i in others])
        assert set(np.flatnonzero(leading)) == {best} | {
            i for i, value in zip(others, p, strict=True) if not value < 0.05
        }
        sizes.add(int(leading.sum()))
    assert len(sizes) > 1


def test_bootstrapped_ranks_by_a_plain_loop() -> None:
    y = np.random.default_rng(4).normal(size=(1, 4, 3))
    low, high = simulation.bootstrapped_ranks(y)
    for i in range(4):
        ranks = []
        for chosen in np.ndindex(3, 3, 3):
            means = y[0][:, list(chosen)].mean(1)
            ranks.append(1 + int((means > means[i]).sum()))
        assert (low[0, i], high[0, i]) == (min(ranks), max(ranks))


# --- familywise error and coverage --------------------------------------------------------------

GRIDS = 1500
SCENARIOS = ("normal", "spread", "records", "noisy")


def stated(scenario: str) -> tuple[float, float]:
    """Return familywise error and coverage in percent, as docs/statistics.md states them."""
    head, *rows = next(table for table in page_tables() if table[0][0] == str(SMALLEST))
    row = dict(zip(head, next(row for row in rows if row[0] == THIS), strict=True))
    error, coverage = row[scenario].split("/")
    return float(error), float(coverage)


def outside(scenario: str, told: Flags, held: Flags) -> list[str]:
    """Say which of the two is outside four standard errors of what is stated."""
    error, coverage = (share / 100 for share in stated(scenario))
    grids = len(told)
    found = []
    if told.mean() > error + 4 * math.sqrt(error * (1 - error) / grids):
        found.append("familywise error")
    noise = held.mean(1).std() / math.sqrt(grids)  # intervals of a grid are not independent
    if abs(held.mean() - coverage) > 0.005 + 4 * noise:  # stated without decimals
        found.append("coverage")
    return found


@pytest.mark.parametrize("name", SCENARIOS)
def test_error_and_coverage_are_as_stated(name: str) -> None:
    told, held = rates(NAMED[name], SMALLEST, GRIDS, {THIS: RULES[THIS]})[THIS]
    assert outside(name, told, held) == []


@pytest.mark.parametrize("name", ["spread", "records", "noisy"])
def test_pooled_variance_is_outside(name: str) -> None:
    told, held = rates(NAMED[name], SMALLEST, GRIDS, {POOLED: RULES[POOLED]})[POOLED]
    assert "familywise error" in outside(name, told, held)


def test_intervals_that_are_a_fifth_too_short_are_outside() -> None:
    def short(d: rule.Differences) -> rule.Estimates:
        e = rule.this_rule(d)
        return e._replace(se=0.8 * e.se)

    for name in SCENARIOS:
        told, held = rates(NAMED[name], SMALLEST, GRIDS, {"short": short})["short"]
        assert outside(name, told, held)


@pytest.mark.parametrize("name", SCENARIOS)
def test_error_and_coverage_of_the_module_are_as_stated(name: str) -> None:
    """The module itself, on fewer grids."""
    told, held = [], []
    for accuracies in simulate(NAMED[name], Setting(3, 1), 75):
        for one in accuracies:
            _, over = module(one)
            to_baseline = [over.contrasts["0", str(i)] for i in range(1, ROWS)]
            told.append(any(c.told for c in to_baseline))
            held.append([c.low <= 0 <= c.high for c in to_baseline])
    assert outside(name, np.array(told), np.array(held)) == []
