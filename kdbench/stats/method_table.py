"""One data frame of statistics over all pairs: a row per method, and tests if pairs suffice.

All statistics use the grid's headline: accuracies of the last epoch.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kdbench.grid.run import BASELINES
from kdbench.runs.evidence import Evidence
from kdbench.stats import over_pairs, over_seeds, pair_tests
from kdbench.stats.bootstrap import Array
from kdbench.stats.cell_summary import (
    Summaries,
    Summary,
    by_pair,
    row_label,
    teacher_accuracy,
)
from kdbench.stats.headline import headline
from kdbench.stats.over_pairs import ValueWithInterval
from kdbench.stats.over_seeds import Difference
from kdbench.stats.pair_tests import CriticalDifference

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    *("method", "pairs", "pairs_expected", "seeds_min"),
    *("diff", "diff_lo", "diff_hi", "diff_median", "p_wilcoxon_holm"),
    *("rank", "rank_lo", "rank_hi", "rank_pairs"),
    *("iqm_gap", "iqm_gap_lo", "iqm_gap_hi", "iqm_pairs"),
    *("p_better", "p_better_lo", "p_better_hi", "wins", "ties", "losses"),
    *("ari", "ari_lo", "ari_hi", "ari_pairs"),
)
COUNTS = ("pairs", "seeds_min", "rank_pairs", "iqm_pairs", "wins", "ties", "losses", "ari_pairs")


@dataclass(frozen=True)
class MethodTable:
    """Statistics of each method over all pairs.

    Attributes:
        frame: ``COLUMNS`` of the student and each method. ``diff`` and ``p_better`` compare with
            the baseline over ``pairs`` pairs; ``rank`` is among ``ranked``; ``iqm_gap`` is the IQM
            of the recovered gap; ``ari`` is the ARI of the report's ``ari_of`` over the row.
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


def method_table(evidence: Evidence, summaries: Summaries) -> MethodTable:
    """Compute statistics over pairs, for each method on the pairs that it and the baseline have.

    Args:
        summaries: of the evidence's cells.
    """
    import pandas as pd

    report = evidence.grid.report
    baseline = row_label(evidence.cells, report.baseline)
    reference = row_label(evidence.cells, report.ari_of) if report.ari_of else None
    names = list(dict.fromkeys(name for cells in summaries.values() for name in cells))
    methods = [name for name in names if name not in BASELINES]
    rows: dict[str, dict[str, Any]] = {
        name: {"method": name} for name in names if name != "teacher"
    }
    to_baseline = {
        name: differences(summaries, name, baseline)
        for name in rows
        if baseline and name != baseline
    }
    means = {name: [d.mean for d in to_baseline[name]] for name in methods if name in to_baseline}
    tested, refusal = _wilcoxon(means, baseline)
    gaps = _gaps(evidence, summaries)
    better = _better(summaries, [name for name in rows if name != baseline], baseline)
    ari = _ari(summaries, [name for name in methods if name != reference], reference)
    for name, row in rows.items():
        row |= {"pairs_expected": sum(name in cells for cells in summaries.values())}
        if name in to_baseline:
            row |= _summarise_differences(to_baseline[name], report.tie)
            row |= {"p_wilcoxon_holm": tested.get(name, math.nan)}
        row |= better.get(name, {}) | ari.get(name, {})
        if name != "student" and gaps[name]:
            row |= _ends("iqm_gap", over_pairs.interquartile_mean(gaps[name]))
            row |= {"iqm_pairs": len(gaps[name])}
    ranked, tables = _ranked(summaries, methods)
    if len(ranked) > 1:
        for name, rank in zip(ranked, over_pairs.average_ranks(tables), strict=True):
            rows[name] |= _ends("rank", rank) | {"rank_pairs": len(tables)}
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


def differences(summaries: Summaries, method: str, other: str) -> list[Difference]:
    """Return paired differences ``method - other`` on every pair with common seeds."""
    paired = (
        over_seeds.difference(cells[method].accuracies, cells[other].accuracies)
        for cells in summaries.values()
        if method in cells and other in cells
    )
    return [difference for difference in paired if difference.n]


def _grouped_by_seeds(
    summaries: Summaries, methods: Sequence[str], others: Sequence[str]
) -> list[tuple[list[str], list[list[Array]]]]:
    """Group methods with the same seeds in common with ``others`` on the same pairs.

    Returns:
        Each group's methods, and for each pair with common seeds the accuracies [S] of each of
        ``others`` and, last, those of the methods [S, M].
    """
    groups: dict[tuple[tuple[str, tuple[int, ...]], ...], list[str]] = {}
    for method in methods:
        key = []
        for pair, cells in summaries.items():
            rows = [cells[name].accuracies for name in (method, *others) if name in cells]
            if len(rows) == 1 + len(others):
                seeds = set(rows[0]).intersection(*rows[1:])
                key += [(pair, tuple(sorted(seeds)))] if seeds else []
        groups.setdefault(tuple(key), []).append(method)
    return [
        (
            names,
            [
                [
                    *(_values(summaries[pair], [name], seeds)[:, 0] for name in others),
                    _values(summaries[pair], names, seeds),
                ]
                for pair, seeds in key
            ],
        )
        for key, names in groups.items()
        if key
    ]


def _values(cells: Mapping[str, Summary], names: Sequence[str], seeds: Sequence[int]) -> Array:
    """Return accuracies [S, M]."""
    return np.array([[cells[name].accuracies[seed] for name in names] for seed in seeds])


def _better(
    summaries: Summaries, methods: Sequence[str], baseline: str | None
) -> dict[str, dict[str, Any]]:
    """Return each method's probability of improvement over the baseline."""
    columns = {}
    for names, pairs in _grouped_by_seeds(summaries, methods, [baseline]) if baseline else []:
        estimates = over_pairs.probability_of_improvement(
            [(values, base) for base, values in pairs]
        )
        for name, estimate in zip(names, estimates, strict=True):
            columns[name] = _ends("p_better", estimate)
    return columns


def _summarise_differences(differences: Sequence[Difference], tie: float) -> dict[str, Any]:
    """Summarise paired differences to the baseline over pairs."""
    if not differences:
        return {"pairs": 0}
    overall = over_pairs.mean_difference(differences)
    won, tied, lost = over_pairs.wins([difference.mean for difference in differences], tie)
    return {
        "pairs": overall.pairs,
        "seeds_min": overall.seeds,
        "diff": overall.mean,
        "diff_lo": overall.low,
        "diff_hi": overall.high,
        "diff_median": overall.median,
        "wins": won,
        "ties": tied,
        "losses": lost,
    }


def _ari(
    summaries: Summaries, methods: Sequence[str], reference: str | None
) -> dict[str, dict[str, Any]]:
    """Return the reference's ARI over each method."""
    columns = {}
    for names, pairs in (
        _grouped_by_seeds(summaries, methods, [reference, "student"]) if reference else []
    ):
        sides = [(ahead, values, student) for ahead, student, values in pairs]
        estimates = over_pairs.average_relative_improvement(sides)
        for name, estimate in zip(names, estimates, strict=True):
            columns[name] = _ends("ari", estimate) | {"ari_pairs": len(pairs)}
    return columns


def _ends(name: str, estimate: ValueWithInterval) -> dict[str, Any]:
    return {name: estimate.value, f"{name}_lo": estimate.low, f"{name}_hi": estimate.high}


def _gaps(evidence: Evidence, summaries: Summaries) -> dict[str, list[list[float]]]:
    """Return the recovered gaps of every run: method -> pair -> runs.

    The student's mean and the teacher's accuracy are treated as exact. A pair whose teacher does
    not lead the student has no gap and is left out.
    """
    gaps: dict[str, list[list[float]]] = {
        name: [] for cells in summaries.values() for name in cells
    }
    for pair, members in by_pair(evidence.cells).items():
        cells = summaries[pair]
        student = cells["student"].mean if "student" in cells else math.nan
        teacher = teacher_accuracy(members, evidence.records, headline(evidence.grid))
        if not teacher - student > over_seeds.TINY:
            continue
        for name, summary in cells.items():
            if summary.n and name != "teacher":
                values = summary.accuracies.values()
                gaps[name].append([over_seeds.recovered_gap(v, student, teacher) for v in values])
    return gaps


def _ranked(summaries: Summaries, methods: Sequence[str]) -> tuple[list[str], list[Array]]:
    """Return the methods with results on every pair that has any, and their accuracies [S, M].

    On a pair without seeds in common to all methods, their means are used as one seed.
    """
    rows = [cells for cells in summaries.values() if any(cells[m].n for m in methods if m in cells)]
    ranked = [m for m in methods if rows and all(m in cells and cells[m].n for cells in rows)]
    tables = []
    for cells in rows if ranked else []:
        first, *others = (cells[m].accuracies for m in ranked)
        seeds = sorted(set(first).intersection(*others))
        means = np.array([[cells[m].mean for m in ranked]])
        tables.append(_values(cells, ranked, seeds) if seeds else means)
    return ranked, tables


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
