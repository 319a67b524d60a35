"""The five questions that a reader comes with, answered from the numbers, as plain sentences."""

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
    """A question and the sentences that answer it; ``link``: (target, words) of where more is."""

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
    whole = [row for row in table if not row.baseline and row.pairs == len(pairs)]
    best = max(whole, key=lambda row: row.accuracy) if whole else None
    return [
        Answer("Which method would you use?", tuple(_which(best, whole, table, baseline))),
        Answer("How sure is that?", tuple(_sure(best, whole, frame, baseline))),
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
    whole: Sequence[TableRow],
    table: Sequence[TableRow],
    baseline: str | None,
) -> list[str]:
    if best is None:
        if any(row.pairs for row in table if not row.baseline):
            return ["No method has a result on every pair yet, so no two can be compared fairly."]
        return ["No method has a result yet."]
    n = len(best.cells)
    every, some = ("on every pair", f"over the {n} pairs") if n > 1 else ("there", "on the pair")
    said = [f"{best.name} has the highest mean accuracy {some}: {numbers.number(best.accuracy)} %."]
    if best.about:
        said.append(f"Paper: {best.about.removesuffix('.')}.")
    if all(cell.n < 2 for row in whole for cell in row.cells):
        return [*said, "With one seed of each method, that is no more than a hint."]
    always = [row for row in whole if row.tops == n]
    others = [row.name for row in always if row is not best]
    if best not in always:
        said.append(
            f"A test tells it from the best on {n - best.tops} of {n} pairs; never told from the "
            f"best: {numbers.listed(others) or 'no method'}."
        )
    elif not others:
        said.append(f"No other method is among the best {every}.")
    else:
        all_of = f"all {len(others)}" if len(others) > 1 else "the one"
        share = f"{len(others)} of {len(whole) - 1}" if len(others) < len(whole) - 1 else all_of
        said.append(
            f"The data does not single it out: {share} other{'s' if len(whole) > 2 else ''} "
            f"cannot be told from the best {'on any pair' if n > 1 else 'there'}, either: "
            f"{numbers.listed(others)}."
        )
        timed = [row for row in always if numbers.known(row.times)]
        if timed and baseline:
            quickest = min(timed, key=lambda row: row.times)
            how = "" if quickest.name == baseline else f" ({_times(quickest, baseline)})"
            said.append(f"Of these, {quickest.name} trains fastest{how}.")
    return said


def _sure(
    best: TableRow | None, whole: Sequence[TableRow], frame: "pd.DataFrame", baseline: str | None
) -> list[str]:
    if best is None:
        return ["There is nothing to be sure of."]
    said = []
    overall = best.overall
    if baseline and best.name != baseline and overall.n:
        interval = numbers.interval(overall.low, overall.high)
        over = f", mean over {best.compared} pairs" if best.compared > 1 else ""
        said.append(
            f"{best.name} − {baseline}: {numbers.signed(overall.mean)} points{over}"
            + (f", 95 % interval {interval}, {overall.n} seeds." if interval else ", no interval.")
        )
        if len(whole) > 2:
            said.append(f"{best.name} was picked by these same numbers, which flatters it.")
    tested = frame[frame["p_holm"].notna()]
    if baseline and len(tested):
        told = tested[tested["p_holm"] < over_seeds.ALPHA]
        said.append(
            f"A test tells {len(told)} of {len(tested)} differences to {baseline} from chance "
            f"({int((told['diff'] > 0).sum())} better, {int((told['diff'] < 0).sum())} worse; "
            "paired t test, 5 %, Holm-adjusted within each pair)."
        )
    return said or ["Too few seeds to say: no difference can be told from chance."]


def _cost(
    best: TableRow | None, table: Sequence[TableRow], evidence: Evidence, baseline: str | None
) -> list[str]:
    ids = dict.fromkeys(run.id for cell in evidence.cells for run in cell.runs)
    ended = map(evidence.records.get, ids)
    spent = [record.cost for record in ended if record and record.cost]
    if not spent:
        return ["No run has ended yet."]
    said = []
    timed = [row for row in table if not row.baseline and numbers.known(row.times)]
    if best in timed and best and best.name != baseline:
        said.append(f"{best.name}: {_times(best, baseline)}.")
    if len(timed) > 1:
        ordered = sorted(timed, key=lambda row: row.times)
        low, high = ordered[0], ordered[-1]
        said.append(
            f"Methods range from {numbers.times(low.times)} ({low.name}) to "
            f"{numbers.times(high.times)} ({high.name}) that time."
        )
    seconds = sum(cost.seconds + cost.teacher_seconds for cost in spent)
    said.append(
        f"All {len(spent):,} runs, each counted as if it had been alone: {duration(seconds)}."
    )
    return said


def _measured(evidence: Evidence, table: Sequence[TableRow], pairs: Sequence[Column]) -> list[str]:
    grid = evidence.grid
    first = first_result(evidence.cells, evidence.records)
    images = f", {first.n_train:,} training images" if first else ""
    tested = f" on {first.n_test:,} test images" if first else ""
    methods = sum(not row.baseline for row in table)
    return [
        f"{grid.dataset.title}{images}, {grid.protocol.epochs} epochs, protocol "
        f"{grid.protocol.name}: {counted(methods, 'method')} × "
        f"{counted(len(pairs), 'teacher-student pair')} × {counted(len(grid.seeds), 'seed')}.",
        f"Top-1 accuracy{tested} after the last epoch; nothing is selected on the test set. Runs "
        "of one seed share initial weights, data order and augmentation, so methods are compared "
        "seed by seed.",
    ]  # fmt: skip


def _missing(evidence: Evidence, table: Sequence[TableRow]) -> list[str]:
    """Of the runs that the grid asks for; one that several pairs share counts once."""
    found = statuses(evidence.cells, evidence.records)
    runs = sum(found.values())
    parts = [f"{count:,} {status}" for status, count in found.items() if status != "done"]
    if not parts:
        return [f"Nothing: all {runs:,} runs are done."]
    lost = runs - found.get("done", 0)
    said = [f"{lost:,} of {runs:,} runs have no result: {numbers.listed(parts)}."]
    empty = [row.name for row in table if not row.pairs and row.name != "teacher"]
    if empty:
        said.append(f"No result on any pair: {numbers.listed(empty)}.")
    return said


def _times(row: TableRow, baseline: str | None) -> str:
    return f"{numbers.times(row.times)} the training time of {baseline}"
