"""The tables of a page: each selects rows of the tidy frame and formats them, as text."""

import math
import re
from typing import TYPE_CHECKING, Any

from kdbench.report.numbers import NONE, number, p_value, signed, spread, with_interval
from kdbench.report.tables.table import Table, methods_of, rows_of, wide
from kdbench.stats import over_seeds
from kdbench.stats.cell_table import average_improvements
from kdbench.wording import counted

if TYPE_CHECKING:
    import pandas as pd


def accuracy(frame: "pd.DataFrame", *, ari_of: str | None = None) -> Table:
    """The paper's layout: teacher, student and methods down, pairs across, ARI last.

    Args:
        frame: of ``tidy``. ari_of: the row whose ARI is shown; None: no such column.
    """
    table = wide(frame, {key: _cell(row) for key, row in rows_of(frame)})
    place = {method: i for i, method in enumerate(methods_of(frame))}
    top = frame.loc[frame["top"].astype(bool), ["method", "pair", "mean"]]
    highest = top[top["mean"] == top.groupby("pair")["mean"].transform("max")]
    bold, best = (
        frozenset((place[key[0]], key[1]) for key, _ in rows_of(one)) for one in (top, highest)
    )
    notes = [
        "Test accuracy of the last epoch in percent, mean ± standard deviation over seeds; "
        "(k/n): k of n seeds are done, and the mean is over these.",
        "Bold: the best of its column, teacher aside, and all that is not distinguishable from it: "
        "paired t test on common seeds, two-sided, p below 0.05 after Holm's adjustment over the "
        "column. Fewer than two common seeds distinguish nothing.",
    ]
    if ari_of:
        column = f"ARI of {ari_of}, %"
        values = average_improvements(frame)
        pairs = frame["pair"].nunique()
        table[column] = [_ari_cell(values.get(method), pairs) for method in table["Method"]]
        others = [name for name in values if ari_of not in re.split(r"[+(]", name)]
        # A row that hardly beats the student would carry the mean away.
        told = [name for name in others if not values[name][2]] or others
        if told:
            average = sum(values[name][0] for name in told) / len(told)
            mark = " †" if values[told[0]][2] else ""
            table.loc[table["Method"] == ari_of, column] = f"mean {number(average, 2)}{mark}"
        notes.append(
            f"ARI: gain of {ari_of} over this row in percent of this row's gain over the student, "
            f"mean over pairs (Chen et al., AAAI 2021); mean: over {', '.join(told) or 'none'}. "
            "†: in at least one pair this row's gain over the student is below 2 standard errors "
            "of the paired difference (or one seed cannot tell), and ARI is not to be relied upon."
        )
    return Table("Accuracy", table, bold, tuple(notes), best)


def improvements(frame: "pd.DataFrame", ari_of: str, overall: "pd.DataFrame") -> Table:
    """What ARI averages: the ratio of each pair, and two companions that are less easily moved.

    Args:
        frame: of ``tidy``. overall: rows over all pairs, with ARI and its interval.
    """
    columns = ["method", "pair", "mean", "ari_ratio", "ari_unreliable"]
    rows = frame.loc[frame["ari_unreliable"].notna(), columns]
    texts = {
        key: number(row.ari_ratio, 1) + (" †" if row.ari_unreliable else "")
        for key, row in rows_of(rows)
    }
    table = wide(rows, texts)
    ahead = frame.loc[frame["method"] == ari_of, ["pair", "mean"]]
    reference = dict(zip(ahead["pair"].tolist(), ahead["mean"].tolist(), strict=True))
    whole = {row.method: row for row in overall.astype(object).itertuples(index=False)}
    medians, points, intervals = [], [], []
    for method in table["Method"]:
        intervals.append(_ends(whole.get(method)))
        of = rows[rows["method"] == method]
        values = zip(of["pair"].tolist(), of["mean"].tolist(), strict=True)
        gains = [reference[pair] - value for pair, value in values]
        medians.append(number(float(of["ari_ratio"].median()), 1))
        points.append(signed(over_seeds.mean(gains)))
    table["ARI [95 %]"] = intervals
    table["Median, %"], table["Mean difference, points"] = medians, points
    note = (
        f"100 · ({ari_of} − row) / (row − student) of each pair, in percent; †: the denominator is "
        f"below 2 standard errors. Mean difference: {ari_of} − row over the same pairs."
    )
    bootstrap = (
        "ARI [95 %]: percentile bootstrap over the seeds that all three have in common, too narrow "
        "with few seeds; an end is infinite where a denominator may vanish."
    )
    return Table(f"What ARI of {ari_of} averages", table, notes=(note, bootstrap))


def _ends(row: Any) -> str:
    if row is None or math.isnan(row.ari_lo):
        return NONE
    return with_interval(row.ari, row.ari_lo, row.ari_hi, 1, sign=False)


def differences(frame: "pd.DataFrame", baseline: str) -> Table:
    """Every row's paired difference to the baseline, with its interval and adjusted p."""
    columns = ["method", "pair", "diff", "diff_n", "lo", "hi", "p", "p_holm"]
    rows = frame.loc[frame["diff_n"].notna(), columns]
    table = wide(rows, {key: _difference_cell(row) for key, row in rows_of(rows)})
    count = int(rows["p"].notna().sum())
    notes = (
        f"Row − {baseline} in points, over the seeds that both have done, [95 % t interval of the "
        "paired difference, for one comparison], p: paired t test, two-sided, Holm-adjusted over "
        f"the methods of the pair; not over pairs. {counted(count, 'comparison')} in all. The "
        "student is shown and not one of the adjusted comparisons.",
        "No interval: fewer than two common seeds, or differences that are all the same.",
    )
    return Table(f"Difference to {baseline}", table, notes=notes)


def reasons(frame: "pd.DataFrame") -> list[str]:
    """A line for each way in which runs ended badly: row, how, why, where, and a run to look at."""
    lines: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    for _, row in rows_of(frame[frame["bad_runs"] != ""]):
        key = (row.method, _troubles(row), row.reason)
        lines.setdefault(key, []).append((row.pair, row.bad_runs.split()[0]))
    out = []
    for (method, how, reason), places in lines.items():
        pairs = list(dict.fromkeys(pair for pair, _ in places))
        more = f" and {len(pairs) - 5} more" if len(pairs) > 5 else ""
        out.append(
            f"{method}, {how}: {reason} ({'; '.join(pairs[:5])}{more}; kdbench show {places[0][1]})"
        )
    return out


def _cell(row: Any) -> str:
    if row.status == "imported":
        return "imported" if math.isnan(row.mean) else f"{row.mean:.2f} (imported)"
    if row.n:
        shown = spread(row.mean, row.sd)
        if row.n == row.expected:
            return shown
        troubles = _troubles(row)
        after = f", {troubles}" if troubles else ""
        return f"{shown} ({row.n}/{row.expected}{after})"
    if row.skipped and row.skipped == row.expected:
        return f"skipped: {row.reason if len(row.reason) <= 60 else row.reason[:59] + '…'}"
    if row.expected in (row.failed, row.missing):
        return row.status
    missing = f"missing {row.missing}/{row.expected}" if row.missing else ""
    return ", ".join(text for text in (_troubles(row), missing) if text)


def _troubles(row: Any) -> str:
    """E.g. ``diverged 1/3, failed 1/3``."""
    counts = {status: getattr(row, status) for status in ("diverged", "failed", "skipped")}
    return ", ".join(f"{status} {k}/{row.expected}" for status, k in counts.items() if k)


def _ari_cell(value: tuple[float, int, bool] | None, pairs: int) -> str:
    if value is None:
        return ""
    average, n, marked = value
    over = f" ({n}/{pairs} pairs)" if n < pairs else ""
    return f"{number(average, 2)}{' †' if marked else ''}{over}"


def _difference_cell(row: Any) -> str:
    if not row.diff_n:
        return NONE
    text = with_interval(row.diff, row.lo, row.hi)
    if math.isnan(row.lo):
        text += " (1 seed)" if row.diff_n == 1 else " (no spread)"
    if not math.isnan(row.p_holm):
        text += ", p < 0.001" if row.p_holm < 0.001 else f", p = {p_value(row.p_holm)}"
    return text
