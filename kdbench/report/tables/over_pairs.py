"""The table of what a grid says over all its pairs, and how far to trust it."""

import math
from typing import TYPE_CHECKING, Any

from kdbench.grid.run import BASELINES
from kdbench.report.numbers import NONE, signed, with_interval
from kdbench.report.tables.table import Table
from kdbench.stats.method_table import MethodTable
from kdbench.wording import counted

if TYPE_CHECKING:
    import pandas as pd


def across_pairs(overall: MethodTable, frame: "pd.DataFrame", tie: float) -> Table:
    """Every method over all pairs.

    Args:
        overall: of the evidence. frame: of ``tidy``. tie: points that count as a tie.
    """
    import pandas as pd

    baseline = overall.baseline
    rows: list[Any] = [
        row
        for row in overall.frame.astype(object).itertuples(index=False)
        if any(_whole(n) for n in (row.pairs, row.rank_pairs, row.iqm_pairs))
    ]
    columns: dict[str, list[str]] = {"Method": [row.method for row in rows]}
    if baseline:
        columns |= {
            f"Mean − {baseline}": [_estimate(row, "diff", sign=True) for row in rows],
            "Median": [signed(row.diff_median) for row in rows],
            f"P(better than {baseline})": [_estimate(row, "p_better") for row in rows],
            "W/T/L": [_record(row) for row in rows],
        }
        if not overall.refusal and overall.comparisons:
            columns["p (Wilcoxon)"] = [_p_value(row.p_wilcoxon_holm) for row in rows]
    columns |= {
        "Rank": [_estimate(row, "rank", 1) for row in rows],
        "Recovered gap (IQM)": [_estimate(row, "iqm_gap") for row in rows],
        "Pairs": [_pairs(row, baseline) for row in rows],
    }
    table = pd.DataFrame(columns, dtype=object)
    return Table("Across pairs", table, notes=tuple(_notes(overall, frame, tie)))


def _notes(overall: MethodTable, frame: "pd.DataFrame", tie: float) -> list[str]:
    baseline, notes = overall.baseline, []
    if baseline:
        notes.append(
            f"Mean: of the paired differences to {baseline} in points over the pairs where both "
            "have a seed in common, [95 % t interval from the spread over seeds, for one "
            "comparison, seeds of different pairs taken as independent; about these pairs, not "
            "about others]; median: over the same pairs. "
            f"P(better): that a run beats a run of {baseline} on the same pair, half of ties "
            "counted (Mann-Whitney), mean over pairs. W/T/L: pairs won, tied (mean difference "
            f"within {tie:g} points) and lost."
        )
    rank_of = (
        f"among the {len(overall.ranked)} methods with a result on all {overall.rank_pairs} "
        "pairs, by the mean over the seeds they have in common"
        if len(overall.ranked) > 1
        else "none, as fewer than two methods have a result on all pairs"
    )
    notes.append(
        f"Rank: {rank_of}; 1 is best, ties share their ranks. Recovered gap: (accuracy − student) "
        "/ (teacher − student) of every run, interquartile mean over runs and pairs, student and "
        "teacher taken as known (Agarwal et al., NeurIPS 2021). Everything here is of the last "
        "epoch; nothing ranks on a best epoch."
    )
    seeds = [int(n) for n in overall.frame["seeds_min"].dropna() if n]
    fewest = min(seeds, default=0)
    if fewest > 1:
        factor = math.sqrt((fewest - 1) / fewest)
        notes.append(
            "The intervals of P, rank and gap draw the seeds of each pair again (percentile "
            f"bootstrap, 95 %): with {fewest} seeds they are too narrow, by a factor of about "
            f"{factor:.2f} for a mean."
        )
    notes.append(_missing(overall, frame))
    if overall.refusal:
        notes.append(overall.refusal)
    elif overall.comparisons:
        notes.append(
            f"p: Wilcoxon signed-rank test of the pairs' mean differences to {baseline}, "
            f"two-sided, Holm-adjusted over {counted(overall.comparisons, 'method')}; each pair "
            "counts as one independent observation, though pairs share data and teachers."
        )
    notes.append(_diagram(overall))
    return notes


def _diagram(overall: MethodTable) -> str:
    """All methods with each other, or why not."""
    found = overall.diagram
    if isinstance(found, str):
        return found
    groups = [" - ".join(found.methods[a : b + 1]) for a, b in found.groups]
    told = f"not told apart: {'; '.join(groups)}" if groups else "every two are told apart"
    return (
        f"All {len(found.methods)} methods with each other over {overall.rank_pairs} pairs: "
        f"Friedman p = {found.friedman:.2g}; Wilcoxon signed-rank tests of every two, "
        f"Holm-adjusted, 5 %: {told}."
    )


def _missing(overall: MethodTable, frame: "pd.DataFrame") -> str:
    cells = frame[~frame["method"].isin(BASELINES)]
    empty = int((cells["n"] == 0).sum())
    partial = int(((cells["n"] > 0) & (cells["n"] < cells["expected"])).sum())
    comparisons = f"Comparisons with {overall.baseline}: {counted(overall.comparisons, 'method')}. "
    return (
        (comparisons if overall.baseline else "")
        + f"Cells without a result: {empty} of {len(cells)}; with some of their seeds: {partial}. "
        "Nothing is filled in: a pair that a method or the baseline lacks is dropped for that "
        "method alone, and Pairs counts those that are left."
    )


def _estimate(row: Any, name: str, digits: int = 2, *, sign: bool = False) -> str:
    value, low, high = (getattr(row, f"{name}{end}") for end in ("", "_lo", "_hi"))
    return with_interval(value, low, high, digits, sign=sign)


def _p_value(p: Any) -> str:
    return NONE if _nan(p) else f"{p:.2g}"


def _nan(value: Any) -> bool:
    import pandas as pd

    return bool(pd.isna(value))


def _whole(value: Any) -> int:
    return 0 if _nan(value) else int(value)


def _record(row: Any) -> str:
    return NONE if _nan(row.wins) else f"{row.wins}/{row.ties}/{row.losses}"


def _pairs(row: Any, baseline: str | None) -> str:
    """Pairs that are compared, of those there should be."""
    own = row.rank_pairs if row.method == baseline or baseline is None else row.pairs
    used = _whole(own)
    return f"{used}/{row.pairs_expected}" if used < row.pairs_expected else str(used)
