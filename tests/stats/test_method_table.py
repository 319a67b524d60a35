import math

import numpy as np
import pytest
import scipy.stats
from fake_grids import (
    PAIRS,
    aggregate_of,
    make_cells,
    make_grid,
    make_records,
    row_of,
    typical,
)

from kdbench.grid.grid import Report
from kdbench.grid.run import Run
from kdbench.report.tables import pair_summaries
from kdbench.stats import over_seeds
from kdbench.stats.method_table import COLUMNS, MethodTable
from kdbench.stats.pair_tests import CriticalDifference

NAMES = ("kd", "at", "semckd")


def noisy(run: Run) -> float:
    draw = np.random.default_rng([len(run.method), run.seed, len(run.student)])
    return typical(run) + float(draw.normal(0, 0.8))


def row_for(result: MethodTable, method: str) -> dict[str, object]:
    [row] = result.frame[result.frame["method"] == method].to_dict("records")
    return {str(key): value for key, value in row.items()}


def test_columns_match_independent_calculations() -> None:
    grid = make_grid(PAIRS, seeds=(0, 1, 2, 3))
    cells = make_cells(grid, NAMES)
    records = make_records(cells, noisy)
    aggregate = aggregate_of(grid, cells, records)
    result, over = aggregate.methods, aggregate.decision.over
    assert list(result.frame.columns) == list(COLUMNS)
    acc = {
        (c.method, c.student): np.array([noisy(run) for run in c.runs]) for c in cells
    }  # fmt: skip
    students = [student for _, student in PAIRS]
    means = np.array([[acc[m, s].mean() for m in NAMES] for s in students])
    ranks = np.mean([scipy.stats.rankdata(-row) for row in means], axis=0)
    for i, method in enumerate(NAMES):
        row = row_for(result, method)
        assert row["average_rank"] == pytest.approx(ranks[i])
        assert over.standings
        placed = over.standings[method]
        assert (row["rank_lo"], row["rank_hi"]) == (placed.rank_low, placed.rank_high)
        assert (row["behind"], row["mean"]) == (placed.behind, over.means[method])
        assert row["state"] == aggregate.decision.recommendation.state[method]
        gaps = [(acc[method, s] - acc["student", s].mean()) / (95 - acc["student", s].mean())
                for s in students]  # fmt: skip
        assert row["iqm_gap"] == pytest.approx(scipy.stats.trim_mean(np.concatenate(gaps), 0.25))
        # Two pairs are too few for a bootstrap interval.
        assert math.isnan(row["iqm_gap_lo"])  # type: ignore[arg-type]
        if method == "kd":
            assert math.isnan(row["diff"])  # type: ignore[arg-type]
            continue
        gains = [acc[method, s] - acc["kd", s] for s in students]
        assert row["diff"] == pytest.approx(np.mean([g.mean() for g in gains]))
        contrast = over.contrasts[method, "kd"]
        ends = [row[name] for name in ("diff_lo", "diff_hi", "diff_se", "diff_df", "p", "p_adj")]
        assert ends == [contrast.low, contrast.high, contrast.se, contrast.df, contrast.p,
                        contrast.p_adj]  # fmt: skip
        assert row["diff_median"] == pytest.approx(np.median([g.mean() for g in gains]))
        wins = [scipy.stats.mannwhitneyu(acc[method, s], acc["kd", s]).statistic / 16
                for s in students]  # fmt: skip
        assert row["p_better"] == pytest.approx(np.mean(wins))
        assert (row["pairs"], row["pairs_expected"], row["seeds_min"]) == (2, 2, 4)
    ari = over_seeds.average_relative_improvement(
        *([acc[m, s].mean() for s in students] for m in ("semckd", "at", "student"))
    )
    row = row_for(result, "at")
    assert row["ari"] == pytest.approx(ari) and row["ari_pairs"] == 2
    assert math.isnan(row["ari_lo"])  # type: ignore[arg-type]


def test_missing_pair_is_dropped_for_its_method_only() -> None:
    grid = make_grid(PAIRS)
    cells = make_cells(grid)
    records = make_records(cells, typical)
    for run in cells[8].runs:
        assert (run.method, run.student) == ("at", "tiny")
        del records[run.id]
    del records[cells[2].runs[0].id]  # kd on small has seeds 1 and 2
    aggregate = aggregate_of(grid, cells, records)
    at, semckd = row_for(aggregate.methods, "at"), row_for(aggregate.methods, "semckd")
    assert (at["pairs"], at["iqm_pairs"], at["seeds_min"]) == (1, 1, 2)
    assert (semckd["pairs"], semckd["seeds_min"]) == (2, 2)
    # Without a result on every pair there is no rank; the others are ranked without it.
    assert aggregate.methods.ranked == ("kd", "semckd")
    assert math.isnan(at["average_rank"]) and semckd["average_rank"] == 1.0  # type: ignore[arg-type]
    table = pair_summaries.summaries(aggregate)
    assert row_of(table, "at")["Pairs"] == "1/2" and row_of(table, "at")["Average rank"] == "–"
    assert any("without a result: 1 of 6; with only some seeds: 1." in n for n in table.notes)
    assert any("among the 2 methods with a result on all 2 pairs" in n for n in table.notes)


def test_best_epoch_affects_no_rank() -> None:
    from dataclasses import replace

    grid = make_grid(PAIRS)
    cells = make_cells(grid)
    records = make_records(cells, typical)
    before = aggregate_of(grid, cells, records)
    for key, record in records.items():
        assert record.result
        better = replace(record.result, best_acc=99.0 - len(key) * hash(key) % 7)
        records[key] = replace(record, result=better)
    after = aggregate_of(grid, cells, records)
    assert after.methods.frame.equals(before.methods.frame)
    changed = [c for c in before.frame if not before.frame[c].equals(after.frame[c])]
    assert changed == ["best_mean"]


def test_few_pairs_give_a_reason_instead_of_a_test() -> None:
    grid = make_grid(PAIRS)
    cells = make_cells(grid)
    aggregate = aggregate_of(grid, cells, make_records(cells, typical))
    assert aggregate.methods.comparisons == 2
    assert aggregate.methods.frame["p_wilcoxon_holm"].isna().all()
    assert "on 2 pairs cannot give a p-value below" in aggregate.methods.refusal
    assert (
        isinstance(aggregate.methods.diagram, str) and "every two of 3" in aggregate.methods.diagram
    )
    assert pair_summaries.another_pair(aggregate) is None
    assert pair_summaries.few_pairs(aggregate) == "2 pairs say little of others."


def test_many_pairs_are_tested_by_wilcoxon() -> None:
    grid = make_grid([("big", f"s{'x' * i}") for i in range(8)])
    cells = make_cells(grid, NAMES)
    aggregate = aggregate_of(grid, cells, make_records(cells, noisy))
    methods = aggregate.methods
    assert methods.refusal == ""
    at = aggregate.frame[aggregate.frame["method"] == "at"]["diff"]
    semckd = aggregate.frame[aggregate.frame["method"] == "semckd"]["diff"]
    ps = [scipy.stats.wilcoxon(values).pvalue for values in (at, semckd)]
    low, high = sorted(ps)
    adjusted = {low: min(1, 2 * low), high: max(2 * low, high)}
    assert row_for(methods, "at")["p_wilcoxon_holm"] == pytest.approx(adjusted[ps[0]])
    assert row_for(methods, "semckd")["p_wilcoxon_holm"] == pytest.approx(adjusted[ps[1]])
    table = pair_summaries.another_pair(aggregate)
    assert table and row_of(table, "kd")["p (Wilcoxon)"] == "–"
    assert any("Holm-adjusted over 2 methods" in note for note in table.notes)
    assert any("All 3 methods with each other over 8 pairs: Friedman p = " in note
               for note in table.notes)  # fmt: skip
    assert isinstance(methods.diagram, CriticalDifference)
    assert methods.diagram.methods[0] == "semckd"


def test_without_a_baseline_or_records() -> None:
    grid = make_grid(PAIRS, report=Report(baseline="at"))
    cells = make_cells(grid, ("kd", "semckd"))
    aggregate = aggregate_of(grid, cells, make_records(cells, typical))
    assert aggregate.methods.baseline is None and aggregate.methods.refusal == ""
    table = pair_summaries.summaries(aggregate)
    assert list(table.rows.columns) == ["Method", "Average rank", "Recovered gap (IQM)", "Pairs"]
    nothing = aggregate_of(grid, cells, {})
    assert nothing.methods.ranked == ()
    assert pair_summaries.summaries(nothing).rows.empty
    assert pair_summaries.few_pairs(nothing) == ""


def test_one_seed_shows_values_without_intervals() -> None:
    grid = make_grid(PAIRS, seeds=[0])
    cells = make_cells(grid)
    aggregate = aggregate_of(grid, cells, make_records(cells, typical))
    row = row_of(pair_summaries.summaries(aggregate), "at")
    assert row["Median − kd"] == "+0.90" and row["Average rank"] == "2.0"
    assert row["P(better than kd)"] == "1.00" and row["W/T/L"] == "2/0/0"


def test_teacher_without_a_lead_gives_no_recovered_gap() -> None:
    grid = make_grid(PAIRS)
    cells = make_cells(grid)
    records = make_records(cells, lambda run: typical(run) + 20 * (run.student == "tiny"))
    row = row_for(aggregate_of(grid, cells, records).methods, "at")
    assert (row["iqm_pairs"], row["pairs"]) == (1, 2)


def test_interval_on_other_pairs_needs_four_pairs_and_is_that_of_the_decision() -> None:
    for count in (3, 4):
        grid = make_grid([("big", f"s{'x' * i}") for i in range(count)])
        cells = make_cells(grid, NAMES)
        aggregate = aggregate_of(grid, cells, make_records(cells, noisy))
        row, other = row_for(aggregate.methods, "at"), aggregate.decision.other
        assert (other is None) == (count == 3)
        if other is None:
            assert math.isnan(row["other_lo"])  # type: ignore[arg-type]
            continue
        contrast = other.contrasts["at", "kd"]
        assert (row["other_lo"], row["other_hi"]) == (contrast.low, contrast.high)
        table = pair_summaries.another_pair(aggregate)
        assert table
        shown = f"{contrast.diff:+.2f} [{contrast.low:+.2f}, {contrast.high:+.2f}]"
        assert row_of(table, "at")["− kd"] == shown.replace("-", "−")
        # Too few pairs for a Wilcoxon test: the table says why.
        assert "p (Wilcoxon)" not in table.rows and aggregate.methods.refusal in table.notes
