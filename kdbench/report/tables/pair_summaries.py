"""Tables that describe methods over pairs beside the main table; nothing in them is marked."""

import math
from typing import TYPE_CHECKING, Any

from kdbench.grid.run import BASELINES
from kdbench.report.numbers import NONE, number, signed, with_interval
from kdbench.report.tables.table import Table
from kdbench.stats.aggregate import Aggregate
from kdbench.stats.contrasts import PairStatistics
from kdbench.stats.method_table import MethodTable
from kdbench.wording import counted

if TYPE_CHECKING:
    import pandas as pd

ANOTHER = "Would it hold on another pair?"


def another_pair(aggregate: Aggregate) -> Table | None:
    """Tabulate what the pairs say of other pairs, with pairs in place of seeds; None if too few."""
    import pandas as pd

    other, methods = aggregate.decision.other, aggregate.methods
    if other is None or aggregate.headline.held_out:
        return None
    baseline = str(methods.baseline)
    rows = sorted(other.means, key=lambda row: -other.means[row])
    columns = {"Method": rows, "Mean, %": [number(other.means[row]) for row in rows]}
    if methods.baseline:
        columns[f"− {baseline}"] = [_on_other_pairs(other, row, baseline) for row in rows]
        if not methods.refusal and methods.comparisons:
            tested = methods.frame["method"].tolist(), methods.frame["p_wilcoxon_holm"].tolist()
            p = dict(zip(*tested, strict=True))
            columns["p (Wilcoxon)"] = [_p_value(p.get(row)) for row in rows]
    return Table(ANOTHER, pd.DataFrame(columns, dtype=object), notes=tuple(_tests(aggregate)))


def few_pairs(aggregate: Aggregate) -> str:
    """Say that the grid's pairs say little of others; "" if there are enough or none."""
    begun = sum(bool(one.means) for one in aggregate.decision.pairs.values())
    if aggregate.decision.other or not begun or aggregate.headline.held_out:
        return ""
    return f"{counted(begun, 'pair')} {'says' if begun == 1 else 'say'} little of others."


def summaries(aggregate: Aggregate) -> Table:
    """Tabulate median, probability of improvement, wins, average rank and recovered gap."""
    import pandas as pd

    overall, baseline = aggregate.methods, aggregate.methods.baseline
    rows: list[Any] = [
        row
        for row in overall.frame.astype(object).itertuples(index=False)
        if any(_count(n) for n in (row.pairs, row.rank_pairs, row.iqm_pairs))
    ]
    columns: dict[str, list[str]] = {"Method": [row.method for row in rows]}
    if baseline:
        columns |= {
            f"Median − {baseline}": [signed(row.diff_median) for row in rows],
            f"P(better than {baseline})": [_estimate(row, "p_better") for row in rows],
            "W/T/L": [_record(row) for row in rows],
        }
    columns |= {
        "Average rank": [number(row.average_rank, 1) for row in rows],
        "Recovered gap (IQM)": [_estimate(row, "iqm_gap") for row in rows],
        "Pairs": [_pairs(row, baseline) for row in rows],
    }
    notes = _notes(overall, aggregate.frame, aggregate.evidence.grid.report.tie)
    return Table("Further statistics over pairs", pd.DataFrame(columns, dtype=object), notes=notes)


def _on_other_pairs(other: PairStatistics, row: str, baseline: str) -> str:
    contrast = other.contrasts.get((row, baseline))
    return with_interval(contrast.diff, contrast.low, contrast.high) if contrast else NONE


def _tests(aggregate: Aggregate) -> list[str]:
    """Explain the intervals, and report the tests that take each pair as one observation."""
    methods = aggregate.methods
    begun = sum(bool(one.means) for one in aggregate.decision.pairs.values())
    notes = [
        f"Each of the {begun} pairs counts as one observation, as if drawn at random from all "
        "pairs; brackets: 95 % interval for one comparison. Methods without a result on every "
        "pair are left out. The marks above are about these pairs only.",
    ]
    if methods.refusal:
        notes.append(methods.refusal)
    elif methods.comparisons:
        notes.append(
            f"p: Wilcoxon signed-rank test of the pairs' mean differences to {methods.baseline}, "
            f"two-sided, Holm-adjusted over {counted(methods.comparisons, 'method')}: a second "
            "opinion without marks."
        )
    return [*notes, _diagram(methods)]


def _diagram(overall: MethodTable) -> str:
    """Report the tests between all methods, or why there are none."""
    diagram = overall.diagram
    if isinstance(diagram, str):
        return diagram
    groups = [" - ".join(diagram.methods[a : b + 1]) for a, b in diagram.groups]
    result = (
        f"no difference is shown within {'; '.join(groups)}"
        if groups
        else "every two methods differ"
    )
    return (
        f"All {len(diagram.methods)} methods with each other over {overall.rank_pairs} pairs: "
        f"Friedman p = {diagram.friedman:.2g}; Wilcoxon signed-rank tests of every two methods, "
        f"Holm-adjusted, 5 %: {result}."
    )


def _notes(overall: MethodTable, frame: "pd.DataFrame", tie: float) -> tuple[str, ...]:
    baseline, notes = overall.baseline, []
    if baseline:
        notes.append(
            f"Median: of the pairs' mean differences to {baseline}, in points. P(better): "
            f"probability that a run beats a run of {baseline} on the same pair, with ties counted "
            "as half (Mann-Whitney), mean over pairs. W/T/L: pairs won, tied (mean difference "
            f"within {tie:g} points) and lost."
        )
    ranked = (
        f"among the {len(overall.ranked)} methods with a result on all {overall.rank_pairs} "
        "pairs, by the mean over their common seeds"
        if len(overall.ranked) > 1
        else "none, since fewer than two methods have a result on all pairs"
    )
    notes.append(
        f"Average rank: {ranked}; 1 is best, ties share the mean of their ranks. Recovered gap: "
        "(accuracy − student) / (teacher − student) of every run, interquartile mean over runs and "
        "pairs, with student and teacher treated as exact (Agarwal et al., NeurIPS 2021). The best "
        "epoch is never used."
    )
    if overall.frame[["p_better_lo", "iqm_gap_lo"]].notna().any(axis=None):
        notes.append(
            "Brackets: 95 % percentile bootstrap, which resamples the seeds of each pair and is "
            "too narrow with few seeds."
        )
    cells = frame[~frame["method"].isin(BASELINES)]
    empty = int((cells["n"] == 0).sum())
    partial = int(((cells["n"] > 0) & (cells["n"] < cells["expected"])).sum())
    notes.append(
        f"Cells without a result: {empty} of {len(cells)}; with only some seeds: {partial}. "
        "Nothing is imputed: a pair that a method or the baseline lacks is dropped for that method "
        "only, and Pairs counts the remaining ones."
    )
    return tuple(notes)


def _estimate(row: Any, name: str) -> str:
    value, low, high = (getattr(row, f"{name}{end}") for end in ("", "_lo", "_hi"))
    return with_interval(value, low, high, sign=False)


def _p_value(p: Any) -> str:
    return NONE if p is None or math.isnan(p) else f"{p:.2g}"


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
