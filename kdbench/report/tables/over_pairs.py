"""The table of each method over all pairs, with notes on its reliability."""

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
    """Tabulate every method over all pairs.

    Args:
        overall: of ``method_table``.
        frame: of ``cell_table``.
        tie: largest difference in points that counts as a tie.
    """
    import pandas as pd

    baseline = overall.baseline
    rows: list[Any] = [
        row
        for row in overall.frame.astype(object).itertuples(index=False)
        if any(_count(n) for n in (row.pairs, row.rank_pairs, row.iqm_pairs))
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
            f"Mean: of the paired differences to {baseline} in points, over the pairs with common "
            "seeds [95 % confidence interval (t) from the variance over seeds, not adjusted for "
            "multiple comparisons, with seeds of different pairs assumed independent; it applies "
            "to these pairs, not to others]; median: over the same pairs. "
            f"P(better): probability that a run beats a run of {baseline} on the same pair, with "
            "ties counted as half (Mann-Whitney), mean over pairs. W/T/L: pairs won, tied (mean "
            f"difference within {tie:g} points) and lost."
        )
    ranked = (
        f"among the {len(overall.ranked)} methods with a result on all {overall.rank_pairs} "
        "pairs, by the mean over their common seeds"
        if len(overall.ranked) > 1
        else "none, since fewer than two methods have a result on all pairs"
    )
    notes.append(
        f"Rank: {ranked}; 1 is best, ties share the mean of their ranks. Recovered gap: "
        "(accuracy − student) / (teacher − student) of every run, interquartile mean over runs and "
        "pairs, with student and teacher treated as exact (Agarwal et al., NeurIPS 2021). All "
        "values are of the last epoch; the best epoch is never used."
    )
    seeds = [int(n) for n in overall.frame["seeds_min"].dropna() if n]
    fewest = min(seeds, default=0)
    if fewest > 1:
        factor = math.sqrt((fewest - 1) / fewest)
        notes.append(
            "The 95 % intervals of P, rank and gap resample the seeds of each pair (percentile "
            f"bootstrap). With {fewest} seeds they are too narrow, by a factor of about "
            f"{factor:.2f} for a mean."
        )
    notes.append(_coverage(overall, frame))
    if overall.refusal:
        notes.append(overall.refusal)
    elif overall.comparisons:
        notes.append(
            f"p: Wilcoxon signed-rank test of the pairs' mean differences to {baseline}, "
            f"two-sided, Holm-adjusted over {counted(overall.comparisons, 'method')}; each pair "
            "counts as one independent observation, although pairs share data and teachers."
        )
    notes.append(_diagram(overall))
    return notes


def _diagram(overall: MethodTable) -> str:
    """Report the tests between all methods, or why there are none."""
    diagram = overall.diagram
    if isinstance(diagram, str):
        return diagram
    groups = [" - ".join(diagram.methods[a : b + 1]) for a, b in diagram.groups]
    result = (
        f"not significantly different: {'; '.join(groups)}"
        if groups
        else "every two methods are significantly different"
    )
    return (
        f"All {len(diagram.methods)} methods with each other over {overall.rank_pairs} pairs: "
        f"Friedman p = {diagram.friedman:.2g}; Wilcoxon signed-rank tests of every two methods, "
        f"Holm-adjusted, 5 %: {result}."
    )


def _coverage(overall: MethodTable, frame: "pd.DataFrame") -> str:
    cells = frame[~frame["method"].isin(BASELINES)]
    empty = int((cells["n"] == 0).sum())
    partial = int(((cells["n"] > 0) & (cells["n"] < cells["expected"])).sum())
    comparisons = f"Comparisons with {overall.baseline}: {counted(overall.comparisons, 'method')}. "
    return (
        (comparisons if overall.baseline else "")
        + f"Cells without a result: {empty} of {len(cells)}; with only some seeds: {partial}. "
        "Nothing is imputed: a pair that a method or the baseline lacks is dropped for that method "
        "only, and Pairs counts the remaining ones."
    )


def _estimate(row: Any, name: str, digits: int = 2, *, sign: bool = False) -> str:
    value, low, high = (getattr(row, f"{name}{end}") for end in ("", "_lo", "_hi"))
    return with_interval(value, low, high, digits, sign=sign)


def _p_value(p: Any) -> str:
    return NONE if _nan(p) else f"{p:.2g}"


def _nan(value: Any) -> bool:
    import pandas as pd

    return bool(pd.isna(value))


def _count(value: Any) -> int:
    return 0 if _nan(value) else int(value)


def _record(row: Any) -> str:
    return NONE if _nan(row.wins) else f"{row.wins}/{row.ties}/{row.losses}"


def _pairs(row: Any, baseline: str | None) -> str:
    """Count the compared pairs, with the expected number if some are missing."""
    pairs = row.rank_pairs if row.method == baseline or baseline is None else row.pairs
    used = _count(pairs)
    return f"{used}/{row.pairs_expected}" if used < row.pairs_expected else str(used)
