"""One data frame of statistics over all pairs: a row per method, and tests if pairs suffice.

All statistics use the grid's headline: accuracies of the last epoch.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kdbench.grid.run import BASELINES
from kdbench.runs.evidence import Evidence
from kdbench.stats import over_pairs, over_seeds, pair_summaries, pair_tests
from kdbench.stats.bootstrap import Array
from kdbench.stats.cell_summary import Summaries, row_label
from kdbench.stats.decision import Decision
from kdbench.stats.pair_tests import CriticalDifference

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    *("method", "pairs", "pairs_expected", "seeds_min", "mean"),
    *("diff", "diff_lo", "diff_hi", "diff_se", "diff_df", "p", "p_adj", "diff_median"),
    *("rank_lo", "rank_hi", "behind", "state", "noisy", "other_lo", "other_hi"),
    *("p_wilcoxon_holm", "average_rank", "rank_pairs"),
    *("iqm_gap", "iqm_gap_lo", "iqm_gap_hi", "iqm_pairs"),
    *("p_better", "p_better_lo", "p_better_hi", "wins", "ties", "losses"),
    *("ari", "ari_lo", "ari_hi", "ari_pairs"),
)
COUNTS = (
    *("pairs", "seeds_min", "rank_lo", "rank_hi", "rank_pairs", "iqm_pairs"),
    *("wins", "ties", "losses", "ari_pairs"),
)


@dataclass(frozen=True)
class MethodTable:
    """Statistics of each method over all pairs.

    Attributes:
        frame: ``COLUMNS`` of the student and each method. ``diff`` to ``p_adj`` compare with the
            baseline over ``pairs`` pairs; ``rank_lo`` to ``noisy`` are the decision's;
            ``other_lo`` and ``other_hi`` are the interval of the difference on other pairs;
            ``average_rank`` is among ``ranked``; ``iqm_gap`` is the IQM of the recovered gap;
            ``p_better`` is the probability that a run beats one of the baseline; ``ari`` is the
            ARI of the report's ``ari_of`` over the row.
        baseline: row that differences are taken to; None if the grid lacks it.
        reference: row whose ARI is reported; None if the grid lacks it.
        ranked: methods with a result on every pair that has any.
        rank_pairs: number of these pairs.
        comparisons: number of methods tested against the baseline over pairs.
        refusal: why there is no test over pairs against the baseline; empty if there is one.
        diagram: contents of the critical-difference diagram, or why there is none.
    """

    frame: "pd.DataFrame"
    baseline: str | None
    reference: str | None
    ranked: tuple[str, ...]
    rank_pairs: int
    comparisons: int
    refusal: str
    diagram: CriticalDifference | str


def method_table(evidence: Evidence, summaries: Summaries, decision: Decision) -> MethodTable:
    """Compute statistics over pairs, for each method on the pairs that it and the baseline have.

    Args:
        summaries: of the evidence's cells.
        decision: what follows from them.
    """
    import pandas as pd

    report, baseline = evidence.grid.report, decision.baseline
    reference = row_label(evidence.cells, report.ari_of) if report.ari_of else None
    names = list(dict.fromkeys(name for cells in summaries.values() for name in cells))
    methods = [name for name in names if name not in BASELINES]
    rows: dict[str, dict[str, Any]] = {
        name: {"method": name} for name in names if name != "teacher"
    }
    means = {
        name: _differences(decision, name, tuple(decision.pairs))
        for name in methods
        if baseline and name != baseline
    }
    tested, refusal = _wilcoxon(means, baseline)
    gaps = pair_summaries.gaps(evidence, summaries)
    better = pair_summaries.better(summaries, [name for name in rows if name != baseline], baseline)
    ari = pair_summaries.ari(summaries, [name for name in methods if name != reference], reference)
    for name, row in rows.items():
        row |= {"pairs_expected": sum(name in cells for cells in summaries.values())}
        row |= _placed(decision, name)
        if baseline and name != baseline:
            row |= _to_baseline(decision, name, report.tie)
            row |= {"p_wilcoxon_holm": tested.get(name, math.nan)}
        row |= better.get(name, {}) | ari.get(name, {})
        if name != "student" and gaps[name]:
            row |= pair_summaries.ends("iqm_gap", over_pairs.interquartile_mean(gaps[name]))
            row |= {"iqm_pairs": len(gaps[name])}
    ranked, tables = pair_summaries.ranked(summaries, methods)
    if len(ranked) > 1:
        for name, rank in zip(ranked, over_pairs.average_ranks(tables), strict=True):
            rows[name] |= {"average_rank": rank, "rank_pairs": len(tables)}
    frame = pd.DataFrame(list(rows.values()), columns=list(COLUMNS))
    return MethodTable(
        frame=frame.astype(dict.fromkeys(COUNTS, "Int64")),
        baseline=baseline,
        reference=reference,
        ranked=tuple(ranked),
        rank_pairs=len(tables),
        comparisons=sum(bool(values) for values in means.values()),
        refusal=refusal,
        diagram=_diagram(ranked, tables),
    )


def _placed(decision: Decision, name: str) -> dict[str, Any]:
    """Return a row's mean over pairs and its place among the rows."""
    over = decision.over
    placed = (over.standings or {}).get(name)
    noisy = any(name in decision.pairs[pair].noisy for pair in over.pairs)
    columns = {
        "mean": over.means.get(name, math.nan),
        "state": decision.recommendation.state.get(name),
        "noisy": noisy,
    }
    if placed:
        columns |= {
            "rank_lo": placed.rank_low, "rank_hi": placed.rank_high, "behind": placed.behind
        }  # fmt: skip
    return columns


def _differences(decision: Decision, name: str, pairs: Sequence[str]) -> list[float]:
    """Return a row's mean difference to the baseline on each pair with common seeds."""
    key = (name, str(decision.baseline))
    by_pair = (decision.pairs[pair].contrasts.get(key) for pair in pairs)
    return [contrast.diff for contrast in by_pair if contrast]


def _to_baseline(decision: Decision, name: str, tie: float) -> dict[str, Any]:
    """Return the difference to the baseline over pairs, and its interval on other pairs."""
    key = (name, str(decision.baseline))
    contrast = decision.over.contrasts.get(key)
    if contrast is None:
        return {"pairs": 0}
    values = _differences(decision, name, decision.over.pairs or tuple(decision.pairs))
    won, tied, lost = over_pairs.wins(values, tie)
    other = decision.other.contrasts.get(key) if decision.other else None
    return {
        "pairs": contrast.pairs,
        "seeds_min": contrast.n,
        "diff": contrast.diff,
        "diff_lo": contrast.low,
        "diff_hi": contrast.high,
        "diff_se": contrast.se,
        "diff_df": contrast.df,
        "p": contrast.p,
        "p_adj": contrast.p_adj,
        "diff_median": float(np.median(values)),
        "other_lo": other.low if other else math.nan,
        "other_hi": other.high if other else math.nan,
        "wins": won,
        "ties": tied,
        "losses": lost,
    }


def _wilcoxon(means: dict[str, list[float]], baseline: str | None) -> tuple[dict[str, float], str]:
    """Test each method against the baseline over pairs: Holm-adjusted p-values, or why not."""
    family = {name: values for name, values in means.items() if values}
    if not baseline or not family:
        return {}, ""
    pairs = max(map(len, family.values()))
    refusal = pair_tests.refusal(pairs, len(family), f"each method with {baseline}")
    if refusal:
        return {}, refusal
    adjusted = over_seeds.holm([pair_tests.wilcoxon(values) for values in family.values()])
    return dict(zip(family, adjusted, strict=True)), ""


def _diagram(ranked: Sequence[str], tables: Sequence[Array]) -> CriticalDifference | str:
    if len(ranked) < 2:
        return "No critical-difference diagram: fewer than two methods have a result on all pairs."
    comparisons = len(list(itertools.combinations(ranked, 2)))
    refusal = pair_tests.refusal(len(tables), comparisons, f"every two of {len(ranked)} methods")
    if refusal:
        return refusal
    return pair_tests.critical_difference(ranked, np.array([table.mean(0) for table in tables]))
