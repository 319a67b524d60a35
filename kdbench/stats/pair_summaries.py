"""Descriptions of methods over pairs: wins, recovered gap, ARI, average rank; not what decides."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdbench.runs.evidence import Evidence
from kdbench.stats import over_pairs, over_seeds
from kdbench.stats.bootstrap import Array
from kdbench.stats.cell_summary import Summaries, Summary, by_pair, teacher_accuracy
from kdbench.stats.headline import headline
from kdbench.stats.over_pairs import ValueWithInterval


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


def better(
    summaries: Summaries, methods: Sequence[str], baseline: str | None
) -> dict[str, dict[str, Any]]:
    """Return each method's probability of improvement over the baseline."""
    columns = {}
    for names, pairs in _grouped_by_seeds(summaries, methods, [baseline]) if baseline else []:
        estimates = over_pairs.probability_of_improvement(
            [(values, base) for base, values in pairs]
        )
        for name, estimate in zip(names, estimates, strict=True):
            columns[name] = ends("p_better", estimate)
    return columns


def ari(
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
            columns[name] = ends("ari", estimate) | {"ari_pairs": len(pairs)}
    return columns


def ends(name: str, estimate: ValueWithInterval) -> dict[str, Any]:
    return {name: estimate.value, f"{name}_lo": estimate.low, f"{name}_hi": estimate.high}


def gaps(evidence: Evidence, summaries: Summaries) -> dict[str, list[list[float]]]:
    """Return the recovered gaps of every run: method -> pair -> runs.

    The student's mean and the teacher's accuracy are treated as exact. A pair whose teacher does
    not lead the student has no gap and is left out.
    """
    found: dict[str, list[list[float]]] = {
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
                found[name].append([over_seeds.recovered_gap(v, student, teacher) for v in values])
    return found


def ranked(summaries: Summaries, methods: Sequence[str]) -> tuple[list[str], list[Array]]:
    """Return the methods with results on every pair that has any, and their accuracies [S, M].

    On a pair without seeds in common to all methods, their means are used as one seed.
    """
    rows = [cells for cells in summaries.values() if any(cells[m].n for m in methods if m in cells)]
    names = [m for m in methods if rows and all(m in cells and cells[m].n for cells in rows)]
    tables = []
    for cells in rows if names else []:
        first, *others = (cells[m].accuracies for m in names)
        seeds = sorted(set(first).intersection(*others))
        means = np.array([[cells[m].mean for m in names]])
        tables.append(_values(cells, names, seeds) if seeds else means)
    return names, tables
