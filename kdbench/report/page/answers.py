"""Answers to a reader's five questions, as plain sentences."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdbench.report import numbers
from kdbench.report.page.main_table import Column, TableRow
from kdbench.runs.evidence import Evidence
from kdbench.stats import over_seeds
from kdbench.stats.aggregate import Aggregate
from kdbench.stats.cell_summary import first_result, statuses
from kdbench.wording import counted, duration

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Answer:
    """A question and the sentences that answer it; ``link``: (target, text) of further details."""

    question: str
    sentences: tuple[str, ...]
    link: tuple[str, str] = ("", "")


def answers(
    aggregate: Aggregate, table: Sequence[TableRow], pairs: Sequence[Column]
) -> list[Answer]:
    """Answer which method, how sure, at what cost, how measured, what is missing.

    Args:
        aggregate: the grid's statistics.
        table: rows of the main table.
        pairs: columns of the main table.
    """
    evidence, frame, baseline = aggregate.evidence, aggregate.frame, aggregate.methods.baseline
    complete = [row for row in table if not row.baseline and row.pairs == len(pairs)]
    best = max(complete, key=lambda row: row.accuracy) if complete else None
    return [
        Answer("Which method would you use?", tuple(_which(best, complete, table, baseline))),
        Answer("How sure is that?", tuple(_sure(best, complete, frame, baseline))),
        Answer("What did it cost?", tuple(_cost(best, table, evidence, baseline))),
        Answer(
            "How was it measured?",
            tuple(_measured(evidence, table, pairs)),
            ("#protocol", "Protocol, teachers, machine and code"),
        ),
        Answer("What is missing?", tuple(_missing(evidence, table)), ("#map", "Map of all cells")),
    ]


def _which(
    best: TableRow | None,
    complete: Sequence[TableRow],
    table: Sequence[TableRow],
    baseline: str | None,
) -> list[str]:
    if best is None:
        if any(row.pairs for row in table if not row.baseline):
            return ["No method has a result on every pair yet, so there is no fair comparison."]
        return ["No method has a result yet."]
    n = len(best.cells)
    over = f"over the {n} pairs" if n > 1 else "on the pair"
    lines = [
        f"{best.name} has the highest mean accuracy {over}: {numbers.number(best.accuracy)} %."
    ]
    if best.about:
        lines.append(f"Paper: {best.about.removesuffix('.')}.")
    if all(cell.n < 2 for row in complete for cell in row.cells):
        return [*lines, "One seed of each method is only a hint."]
    always = [row for row in complete if row.tops == n]
    others = [row.name for row in always if row is not best]
    if best not in always:
        lines.append(
            f"It is significantly worse than the best method on {n - best.tops} of {n} pairs. "
            f"Among the best on every pair: {numbers.listed(others) or 'no method'}."
        )
    elif not others:
        everywhere = " on every pair" if n > 1 else ""
        lines.append(f"No other method is among the best{everywhere}.")
    else:
        rest = len(complete) - 1
        share = f"{len(others)} of {rest}" if len(others) < rest else f"all {rest}"
        share, noun = (share, "methods") if rest > 1 else ("the", "method")
        verb = "is" if len(others) == 1 else "are"
        where = " on any pair" if n > 1 else ""
        lines.append(
            f"This lead is not conclusive: {share} other {noun} {verb} not significantly "
            f"different from the best{where} ({numbers.listed(others)})."
        )
        timed = [row for row in always if numbers.known(row.times)]
        if timed and baseline:
            quickest = min(timed, key=lambda row: row.times)
            how = "" if quickest.name == baseline else f" ({_times(quickest, baseline)})"
            lines.append(f"Of these methods, {quickest.name} trains fastest{how}.")
    return lines


def _sure(
    best: TableRow | None, complete: Sequence[TableRow], frame: "pd.DataFrame", baseline: str | None
) -> list[str]:
    if best is None:
        return ["There is no result to test yet."]
    lines = []
    overall = best.overall
    if baseline and best.name != baseline and overall.n:
        interval = numbers.interval(overall.low, overall.high)
        over = f", mean over {best.compared} pairs" if best.compared > 1 else ""
        lines.append(
            f"{best.name} − {baseline}: {numbers.signed(overall.mean)} points{over}"
            + (f", 95 % interval {interval}, {overall.n} seeds." if interval else ", no interval.")
        )
        if len(complete) > 2:
            lines.append(
                f"{best.name} was chosen by the same numbers, so they overestimate its advantage."
            )
    tested = frame[frame["p_holm"].notna()]
    if baseline and len(tested):
        significant = tested[tested["p_holm"] < over_seeds.ALPHA]
        better, worse = (significant["diff"] > 0).sum(), (significant["diff"] < 0).sum()
        lines.append(
            f"{len(significant)} of {len(tested)} differences to {baseline} "
            f"{'is' if len(significant) == 1 else 'are'} significant ({better} better, {worse} "
            "worse; paired t test, 5 %, Holm-adjusted within each pair)."
        )
    return lines or ["There are too few seeds to test any difference."]


def _cost(
    best: TableRow | None, table: Sequence[TableRow], evidence: Evidence, baseline: str | None
) -> list[str]:
    ids = dict.fromkeys(run.id for cell in evidence.cells for run in cell.runs)
    records = map(evidence.records.get, ids)
    costs = [record.cost for record in records if record and record.cost]
    if not costs:
        return ["No run has finished yet."]
    lines = []
    timed = [row for row in table if not row.baseline and numbers.known(row.times)]
    if best in timed and best and best.name != baseline:
        lines.append(f"{best.name}: {_times(best, baseline)}.")
    if len(timed) > 1:
        ordered = sorted(timed, key=lambda row: row.times)
        low, high = ordered[0], ordered[-1]
        lines.append(
            f"Methods take from {numbers.times(low.times)} ({low.name}) to "
            f"{numbers.times(high.times)} ({high.name}) the training time of {baseline}."
        )
    seconds = sum(cost.seconds + cost.teacher_seconds for cost in costs)
    lines.append(f"All {len(costs):,} runs: {duration(seconds)} (sum of single-run times).")
    return lines


def _measured(evidence: Evidence, table: Sequence[TableRow], pairs: Sequence[Column]) -> list[str]:
    grid = evidence.grid
    first = first_result(evidence.cells, evidence.records)
    images = f", {first.n_train:,} training images" if first else ""
    test_set = f" on {first.n_test:,} test images" if first else ""
    methods = sum(not row.baseline for row in table)
    return [
        f"{grid.dataset.title}{images}, {grid.protocol.epochs} epochs, protocol "
        f"{grid.protocol.name}: {counted(methods, 'method')} × "
        f"{counted(len(pairs), 'teacher-student pair')} × {counted(len(grid.seeds), 'seed')}.",
        f"Top-1 accuracy{test_set} after the last epoch; nothing is selected on the test set. Runs "
        "of one seed share initial weights, data order and augmentation, so methods are compared "
        "seed by seed.",
    ]  # fmt: skip


def _missing(evidence: Evidence, table: Sequence[TableRow]) -> list[str]:
    """Count the grid's runs without a result; a run that several pairs share counts once."""
    counts = statuses(evidence.cells, evidence.records)
    runs = sum(counts.values())
    parts = [f"{count:,} {status}" for status, count in counts.items() if status != "done"]
    if not parts:
        return [f"Nothing: all {runs:,} runs are done."]
    lost = runs - counts.get("done", 0)
    lines = [f"{lost:,} of {runs:,} runs have no result: {numbers.listed(parts)}."]
    empty = [row.name for row in table if not row.pairs and row.name != "teacher"]
    if empty:
        lines.append(f"No result on any pair: {numbers.listed(empty)}.")
    return lines


def _times(row: TableRow, baseline: str | None) -> str:
    return f"{numbers.times(row.times)} the training time of {baseline}"
