"""Tables of accuracies: each selects rows of the cell table and formats them as text."""

import math
import re
from typing import TYPE_CHECKING, Any

from kdbench.report.numbers import NONE, number, signed, spread, with_interval
from kdbench.report.tables import marks
from kdbench.report.tables.table import Table, methods_of, rows_of, wide
from kdbench.stats import over_seeds
from kdbench.stats.cell_table import average_improvements
from kdbench.stats.decision import Decision
from kdbench.stats.headline import ON_TEST, Headline, shown_answers
from kdbench.stats.paired_differences import Contrast
from kdbench.wording import counted

if TYPE_CHECKING:
    import pandas as pd


def accuracy(
    frame: "pd.DataFrame",
    *,
    decision: Decision | None = None,
    headline: Headline = ON_TEST,
    ari_of: str | None = None,
) -> Table:
    """Tabulate accuracies: a row per method, a column per pair, and ARI last, as in the paper.

    Args:
        frame: of ``cell_table``.
        decision: for marks; None for a table without marks, e.g. of different protocols.
        headline: the accuracy in the frame; if it is held out, there are no marks.
        ari_of: row whose ARI is shown; None for no such column.
    """
    marked = None if headline.held_out else decision
    table = wide(frame, {key: _cell(row, marked) for key, row in rows_of(frame)})
    positions = {method: i for i, method in enumerate(methods_of(frame))}
    bold = frozenset(
        (positions[max(means, key=lambda row: means[row])], pair)
        for pair, means in (
            (name, one.means) for name, one in (marked.pairs if marked else {}).items()
        )
        if means
    )
    name = headline.name.capitalize()
    notes = [
        f"{name} of the last epoch in percent, mean ± standard deviation over seeds; (k/n): k of n "
        "seeds are finished, and the mean is over these.",
    ]
    if marked:
        notes.append(
            f"Bold: the highest mean of its column. {marks.LEADING}: on this pair alone, may be "
            f"the best; {marks.UNPLACED}: cannot be placed."
        )
    notes += shown_answers(headline)
    if ari_of:
        column = f"ARI of {ari_of}, %"
        values = average_improvements(frame)
        pairs = frame["pair"].nunique()
        table[column] = [_ari_cell(values.get(method), pairs) for method in table["Method"]]
        others = [name for name in values if ari_of not in re.split(r"[+(]", name)]
        # A row that hardly beats the student would dominate the mean.
        averaged = [name for name in others if not values[name][2]] or others
        if averaged:
            average = sum(values[name][0] for name in averaged) / len(averaged)
            mark = " †" if values[averaged[0]][2] else ""
            table.loc[table["Method"] == ari_of, column] = f"mean {number(average, 2)}{mark}"
        notes.append(
            f"ARI: gain of {ari_of} over this row in percent of this row's gain over the student, "
            f"mean over pairs (Chen et al., AAAI 2021); mean: over "
            f"{', '.join(averaged) or 'none'}. †: unreliable, since on at least one pair this "
            "row's gain over the student is below 2 standard errors of the paired difference, or "
            "has no standard error (one seed)."
        )
    return Table("Accuracy", table, bold, tuple(notes))


def improvements(frame: "pd.DataFrame", ari_of: str, overall: "pd.DataFrame") -> Table:
    """Tabulate the ratio of each pair, whose mean is ARI, with their median and the difference.

    Args:
        frame: of ``cell_table``.
        ari_of: row whose ARI is shown.
        overall: of ``method_table``: ARI and its interval.
    """
    columns = ["method", "pair", "mean", "ari_ratio", "ari_unreliable"]
    rows = frame.loc[frame["ari_unreliable"].notna(), columns]
    texts = {
        key: number(row.ari_ratio, 1) + (" †" if row.ari_unreliable else "")
        for key, row in rows_of(rows)
    }
    table = wide(rows, texts)
    references = frame.loc[frame["method"] == ari_of, ["pair", "mean"]]
    reference = dict(zip(references["pair"].tolist(), references["mean"].tolist(), strict=True))
    by_method = {row.method: row for row in overall.astype(object).itertuples(index=False)}
    medians, points, intervals = [], [], []
    for method in table["Method"]:
        intervals.append(_ari_with_interval(by_method.get(method)))
        cells = rows[rows["method"] == method]
        values = zip(cells["pair"].tolist(), cells["mean"].tolist(), strict=True)
        gains = [reference[pair] - value for pair, value in values]
        medians.append(number(float(cells["ari_ratio"].median()), 1))
        points.append(signed(over_seeds.mean(gains)))
    table["ARI [95 %]"] = intervals
    table["Median, %"], table["Mean difference, points"] = medians, points
    note = (
        f"100 · ({ari_of} − row) / (row − student) on each pair, in percent; †: the denominator is "
        f"below 2 standard errors. Mean difference: {ari_of} − row over the same pairs."
    )
    bootstrap = (
        "ARI [95 %]: percentile bootstrap over the seeds common to all three, with five pairs or "
        "more; an end is infinite if a denominator may be 0."
    )
    return Table(f"ARI of {ari_of} by pair", table, notes=(note, bootstrap))


def _ari_with_interval(row: Any) -> str:
    if row is None:
        return NONE
    return with_interval(row.ari, row.ari_lo, row.ari_hi, 1, sign=False)


def differences(frame: "pd.DataFrame", decision: Decision) -> Table:
    """Tabulate paired differences to the baseline with intervals and marks, pair by pair."""
    rows = frame.loc[frame["diff_n"].notna(), ["method", "pair", "n"]]
    key = str(decision.baseline)
    texts = {
        (method, pair): _difference_cell(decision.pairs[pair].contrasts.get((method, key)))
        for (method, pair), _ in rows_of(rows)
    }
    notes = (
        f"Row − {decision.baseline} in points over the common seeds [95 % interval for one "
        f"comparison]. {marks.BETTER}{marks.WORSE}: better or worse after allowing for all rows of "
        "the pair (5 %).",
        *marks.noisy_rows(decision),
    )
    return Table(f"Difference to {decision.baseline}", wide(rows, texts), notes=notes)


def reasons(frame: "pd.DataFrame") -> list[str]:
    """List failures: for each row and reason, a line with its pairs and the id of one such run."""
    lines: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    for _, row in rows_of(frame[frame["bad_runs"] != ""]):
        key = (row.method, _count_failures(row), row.reason)
        lines.setdefault(key, []).append((row.pair, row.bad_runs.split()[0]))
    texts = []
    for (method, counts, reason), cells in lines.items():
        pairs = list(dict.fromkeys(pair for pair, _ in cells))
        more = f" and {len(pairs) - 5} more" if len(pairs) > 5 else ""
        texts.append(
            f"{method}, {counts}: {reason} "
            f"({'; '.join(pairs[:5])}{more}; kdbench show {cells[0][1]})"
        )
    return texts


def _cell(row: Any, decision: Decision | None) -> str:
    if row.status == "imported":
        return "imported" if math.isnan(row.mean) else f"{row.mean:.2f} (imported)"
    if row.n:
        accuracy = spread(row.mean, row.sd)
        if row.n < row.expected:
            accuracy += f" ({row.n}/{row.expected}{_survivors(row)})"
        mark = marks.of_row(decision.on_pair[row.pair], row.method) if decision else ""
        return marks.with_mark(accuracy, mark)
    if row.skipped and row.skipped == row.expected:
        return f"skipped: {row.reason if len(row.reason) <= 60 else row.reason[:59] + '…'}"
    if row.expected in (row.failed, row.missing):
        return row.status
    missing = f"missing {row.missing}/{row.expected}" if row.missing else ""
    return ", ".join(text for text in (_count_failures(row), missing) if text)


def _survivors(row: Any) -> str:
    """Say how many runs the mean lacks because they ended badly."""
    counts = {status: getattr(row, status) for status in ("diverged", "failed")}
    lost = [f"{k} of {counted(row.expected, 'run')} {word}" for word, k in counts.items() if k]
    return "".join(f", {text}" for text in lost)


def _count_failures(row: Any) -> str:
    """Count runs without a result, e.g. ``diverged 1/3, failed 1/3``."""
    counts = {status: getattr(row, status) for status in ("diverged", "failed", "skipped")}
    return ", ".join(f"{status} {k}/{row.expected}" for status, k in counts.items() if k)


def _ari_cell(value: tuple[float, int, bool] | None, pairs: int) -> str:
    if value is None:
        return ""
    average, n, unreliable = value
    over = f" ({n}/{pairs} pairs)" if n < pairs else ""
    return f"{number(average, 2)}{' †' if unreliable else ''}{over}"


def _difference_cell(contrast: Contrast | None) -> str:
    if contrast is None:
        return NONE
    text = with_interval(contrast.diff, contrast.low, contrast.high)
    if not contrast.known:
        text += " (1 seed)" if contrast.n == 1 else " (no interval)"
    return marks.with_mark(text, marks.of_difference(contrast))
