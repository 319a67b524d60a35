"""The main table: every method over all pairs, with its place among them."""

import math
from collections.abc import Iterable

from kdbench.report.numbers import NONE, known, number, times, with_interval
from kdbench.report.tables import marks
from kdbench.report.tables.table import Table
from kdbench.stats.aggregate import Aggregate
from kdbench.stats.cell_summary import STATUSES, Summary
from kdbench.stats.decision import Decision
from kdbench.stats.headline import TEST_COLUMN, how_to_choose, shown_answers
from kdbench.stats.over_seeds import mean
from kdbench.stats.paired_differences import Contrast
from kdbench.stats.standings import Standing
from kdbench.wording import counted


def over_pairs(aggregate: Aggregate) -> Table:
    """Tabulate mean, difference to the baseline, mark, rank and distance to the best of each row.

    A grid that chooses values on held-out images has no marks and no ranks; its test accuracy is
    the last column.
    """
    import pandas as pd

    decision, over = aggregate.decision, aggregate.decision.over
    baseline, choosing = decision.baseline, aggregate.headline.held_out
    rows = ordered(aggregate)
    cells = {
        row: [members[row] for members in aggregate.summaries.values() if row in members]
        for row in rows
    }
    contrasts = [over.contrasts.get((row, str(baseline))) for row in rows]
    columns: dict[str, list[str]] = {
        "Method": rows if choosing else [_name(decision, row) for row in rows],
        MEAN: [_mean(decision, row, cells[row]) for row in rows],
    }
    if baseline:
        columns[f"− {baseline}"] = [_difference(one, decision) for one in contrasts]
        if not choosing:
            columns["Mark"] = [marks.of_difference(one) for one in contrasts]
    if over.standings and not choosing:
        placed = [over.standings.get(row) for row in rows]
        columns["Rank"] = [rank(one) for one in placed]
        columns["At most behind"] = [number(one.behind) if one else NONE for one in placed]
    if any(map(known, decision.times.values())):
        columns["Time"] = [times(decision.times.get(row, math.nan)) for row in rows]
    if choosing:
        columns[TEST_COLUMN] = [_test(cells[row]) for row in rows]
    best = max(over.means, key=lambda row: over.means[row], default=None)
    bold = frozenset({(rows.index(best), MEAN)} if best and not choosing else ())
    return Table(_title(decision), pd.DataFrame(columns, dtype=object), bold, _notes(aggregate))


MEAN = "Mean, %"


def ordered(aggregate: Aggregate) -> list[str]:
    """Order all rows but the teacher's by their mean over pairs, those without one last."""
    means = aggregate.decision.over.means
    names = dict.fromkeys(row for members in aggregate.summaries.values() for row in members)
    return sorted(
        (name for name in names if name != "teacher"), key=lambda row: -means.get(row, -math.inf)
    )


def rank(standing: Standing | None) -> str:
    """Format the range of a rank, e.g. ``1–2``."""
    if standing is None:
        return NONE
    low, high = standing.rank_low, standing.rank_high
    return str(low) if low == high else f"{low}–{high}"


def unfinished(cells: Iterable[Summary]) -> str:
    """Count the runs without a result, e.g. ``1 of 3 runs diverged, 1 missing``."""
    cells = list(cells)
    total = counted(sum(cell.expected for cell in cells), "run")
    counts = {word: sum(cell.statuses.get(word, 0) for cell in cells) for word in STATUSES[1:]}
    parts = [f"{count} {word}" for word, count in counts.items() if count]
    if not parts:
        return ""
    first, *others = parts
    count, _, word = first.partition(" ")
    return ", ".join([f"{count} of {total} {word}", *others])


def _title(decision: Decision) -> str:
    pairs = decision.over.pairs or decision.pairs
    return f"Over {counted(len(pairs), 'pair')}"


def _name(decision: Decision, row: str) -> str:
    return marks.with_mark(row, marks.of_row(decision.recommendation, row))


def _mean(decision: Decision, row: str, cells: list[Summary]) -> str:
    """Format the mean over pairs, with the runs that it lacks; without one say why."""
    lacking = unfinished(cells)
    value = decision.over.means.get(row)
    if value is not None:
        return f"{number(value)} ({lacking})" if lacking else number(value)
    done = sum(bool(cell.n) for cell in cells)
    if done:
        return f"{done} of {counted(len(decision.pairs), 'pair')}"
    return ", ".join(dict.fromkeys(cell.status for cell in cells))


def _difference(contrast: Contrast | None, decision: Decision) -> str:
    if contrast is None:
        return NONE
    pairs = decision.over.pairs or [one for one in decision.pairs.values() if one.means]
    text = with_interval(contrast.diff, contrast.low, contrast.high)
    return (
        f"{text} ({contrast.pairs} of {len(pairs)} pairs)" if contrast.pairs < len(pairs) else text
    )


def _test(cells: list[Summary]) -> str:
    return number(mean(cell.test_mean for cell in cells if cell.n))


def _notes(aggregate: Aggregate) -> tuple[str, ...]:
    decision, headline = aggregate.decision, aggregate.headline
    first = f"Mean: {headline.name} of the last epoch in percent, over seeds and pairs."
    if aggregate.decision.baseline:
        first += (
            f" − {decision.baseline}: mean paired difference in points [95 % interval] over the "
            "pairs where both have common seeds, for these pairs."
        )
    if any(map(known, decision.times.values())):
        first += f" Time: of training, relative to {decision.baseline}."
    first = " ".join([first, *shown_answers(headline)])
    if headline.held_out:
        return (first, f"{how_to_choose(aggregate.evidence.grid)}.")
    return tuple(note for note in (first, marks.legend(decision)) if note)
