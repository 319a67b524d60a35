"""What a grid says over all its pairs: one row a method, and tests where pairs are enough.

No test and no rank looks at a best epoch: all is of the last epoch's accuracies.
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
    """All pairs together.

    Attributes:
        frame: a row per student and method, ``COLUMNS``: ``diff`` and ``p_better`` are against the
            baseline over ``pairs`` pairs; ``rank`` is among ``ranked``; ``iqm_gap`` is of the
            recovered gap; ``ari`` is of the report's ``ari_of`` over the row.
        baseline, reference: rows that the report compares with; None where the grid has none.
        ranked: methods that have a result on every pair where any has.
        rank_pairs: those pairs. comparisons: methods tested against the baseline over pairs.
        refusal: why no test over pairs against the baseline is shown; empty where one is.
        diagram: what a critical-difference diagram shows, or why there is none.
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
    """Statistics over pairs; pairs that a method or its baseline lacks are dropped for it alone.

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
    known = {
        name: differences(summaries, name, baseline) for name in rows if baseline and name != baseline
    }
    against = {name: [d.mean for d in known[name]] for name in methods if name in known}
    tested, refusal = _wilcoxon(against, baseline)
    gaps = _gaps(evidence, summaries)
    better = _better(summaries, [name for name in rows if name != baseline], baseline)
    ari = _ari(summaries, [name for name in methods if name != reference], reference)
    for name, row in rows.items():
        row |= {"pairs_expected": sum(name in cells for cells in summaries.values())}
        if name in known:
            row |= _against(known[name], report.tie)
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
        comparisons=sum(bool(values) for values in against.values()),
        refusal=refusal,
        diagram=_diagram(ranked, tables),
    )


def differences(found: Summaries, method: str, other: str) -> list[Difference]:
    """Paired differences ``method - other`` of every pair where both have a seed in common."""
    both = (
        over_seeds.difference(cells[method].accuracies, cells[other].accuracies)
        for cells in found.values()
        if method in cells and other in cells
    )
    return [difference for difference in both if difference.n]


def _alike(
    found: Summaries, methods: Sequence[str], others: Sequence[str]
) -> list[tuple[list[str], list[list[Array]]]]:
    """Methods that have the same seeds in common with ``others`` on the same pairs, together.

    Returns:
        Such methods, and of each pair with common seeds the others' accuracies [S] and, last,
        the methods' [S, M].
    """
    groups: dict[tuple[tuple[str, tuple[int, ...]], ...], list[str]] = {}
    for method in methods:
        key = []
        for pair, cells in found.items():
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
                    *(_values(found[pair], [name], seeds)[:, 0] for name in others),
                    _values(found[pair], names, seeds),
                ]
                for pair, seeds in key
            ],
        )
        for key, names in groups.items()
        if key
    ]


def _values(cells: Mapping[str, Summary], names: Sequence[str], seeds: Sequence[int]) -> Array:
    """Accuracies [S, M]."""
    return np.array([[cells[name].accuracies[seed] for name in names] for seed in seeds])


def _better(
    found: Summaries, methods: Sequence[str], baseline: str | None
) -> dict[str, dict[str, Any]]:
    """Of each method the probability of improvement over the baseline."""
    out = {}
    for names, pairs in _alike(found, methods, [baseline]) if baseline else []:
        estimates = over_pairs.probability_of_improvement([(of, base) for base, of in pairs])
        for name, estimate in zip(names, estimates, strict=True):
            out[name] = _ends("p_better", estimate)
    return out


def _against(known: Sequence[Difference], tie: float) -> dict[str, Any]:
    """What paired differences to the baseline say over pairs."""
    if not known:
        return {"pairs": 0}
    whole = over_pairs.overall(known)
    won, tied, lost = over_pairs.wins([difference.mean for difference in known], tie)
    return {
        "pairs": whole.pairs,
        "seeds_min": whole.seeds,
        "diff": whole.mean,
        "diff_lo": whole.low,
        "diff_hi": whole.high,
        "diff_median": whole.median,
        "wins": won,
        "ties": tied,
        "losses": lost,
    }


def _ari(
    found: Summaries, methods: Sequence[str], reference: str | None
) -> dict[str, dict[str, Any]]:
    """Of each method the ARI of the reference over it."""
    out = {}
    for names, pairs in _alike(found, methods, [reference, "student"]) if reference else []:
        sides = [(ahead, of, alone) for ahead, alone, of in pairs]
        estimates = over_pairs.average_relative_improvement(sides)
        for name, estimate in zip(names, estimates, strict=True):
            out[name] = _ends("ari", estimate) | {"ari_pairs": len(pairs)}
    return out


def _ends(name: str, estimate: ValueWithInterval) -> dict[str, Any]:
    return {name: estimate.value, f"{name}_lo": estimate.low, f"{name}_hi": estimate.high}


def _gaps(evidence: Evidence, found: Summaries) -> dict[str, list[list[float]]]:
    """Method -> pair -> the recovered gap of every run.

    The student's mean and the teacher's accuracy are taken as known. A pair whose teacher is not
    ahead of the student has no gap to recover.
    """
    out: dict[str, list[list[float]]] = {name: [] for cells in found.values() for name in cells}
    for pair, members in by_pair(evidence.cells).items():
        cells = found[pair]
        student = cells["student"].mean if "student" in cells else math.nan
        teacher = teacher_accuracy(members, evidence.records)
        if not teacher - student > over_seeds.TINY:
            continue
        for name, summary in cells.items():
            if summary.n and name != "teacher":
                values = summary.accuracies.values()
                out[name].append([over_seeds.recovered_gap(v, student, teacher) for v in values])
    return out


def _ranked(found: Summaries, methods: Sequence[str]) -> tuple[list[str], list[Array]]:
    """The methods that are on every pair where any is, and their accuracies [S, M] on each.

    Where they have no seed in common, their means stand for one seed.
    """
    rows = [cells for cells in found.values() if any(cells[m].n for m in methods if m in cells)]
    ranked = [m for m in methods if rows and all(m in cells and cells[m].n for cells in rows)]
    tables = []
    for cells in rows if ranked else []:
        first, *others = (cells[m].accuracies for m in ranked)
        seeds = sorted(set(first).intersection(*others))
        means = np.array([[cells[m].mean for m in ranked]])
        tables.append(_values(cells, ranked, seeds) if seeds else means)
    return ranked, tables


def _wilcoxon(
    against: dict[str, list[float]], baseline: str | None
) -> tuple[dict[str, float], str]:
    """Holm-adjusted p of each method against the baseline over pairs, or why there is none."""
    family = {name: values for name, values in against.items() if values}
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
