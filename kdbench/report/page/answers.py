"""Answers to a reader's questions, as plain sentences."""

from collections.abc import Sequence
from dataclasses import dataclass

from kdbench.report import numbers
from kdbench.report.page.main_table import Column, TableRow
from kdbench.report.text import decision_sentences
from kdbench.runs.evidence import Evidence
from kdbench.stats.aggregate import Aggregate
from kdbench.stats.cell_summary import first_result, statuses
from kdbench.stats.headline import chooses_on_held_out
from kdbench.wording import counted


@dataclass(frozen=True)
class Answer:
    """A question and the sentences that answer it; ``command``: to be run for the answer."""

    question: str
    sentences: tuple[str, ...]
    command: str = ""


def answers(aggregate: Aggregate) -> list[Answer]:
    """Answer which method, how sure, at what cost; questions without an answer are left out."""
    which = decision_sentences.which(aggregate)
    if chooses_on_held_out(aggregate.evidence.grid):
        sentence, _, command = which[0].removesuffix(".").partition(": ")
        first = Answer("Which value would you use?", (f"{sentence}:",), command)
    else:
        first = Answer("Which method would you use?", tuple(which))
    all_of_them = [
        first,
        Answer("How sure is that?", tuple(decision_sentences.sure(aggregate))),
        Answer("At what cost?", tuple(decision_sentences.cost(aggregate))),
    ]
    return [answer for answer in all_of_them if answer.sentences]


def further(
    aggregate: Aggregate, table: Sequence[TableRow], pairs: Sequence[Column]
) -> list[Answer]:
    """Answer whether it would hold elsewhere, how it was measured, what is missing.

    Args:
        aggregate: the grid's statistics.
        table: rows of the main table.
        pairs: columns of the main table.
    """
    evidence = aggregate.evidence
    elsewhere = decision_sentences.elsewhere(aggregate)
    all_of_them = [
        Answer("Would it hold on another pair?", tuple(elsewhere)),
        Answer("How was it measured?", tuple(_measured(aggregate, table, pairs))),
        Answer("What is missing?", tuple(_missing(evidence, table))),
    ]
    return [answer for answer in all_of_them if answer.sentences]


def _measured(
    aggregate: Aggregate, table: Sequence[TableRow], pairs: Sequence[Column]
) -> list[str]:
    evidence = aggregate.evidence
    grid = evidence.grid
    first = first_result(evidence.cells, evidence.records)
    images = f", {first.n_train:,} training images" if first else ""
    methods = sum(not row.baseline for row in table)
    size = f"{first.n_test:,} " if first and not aggregate.headline.held_out else ""
    on = f"Top-1 accuracy on {size}{aggregate.headline.images} after the last epoch"
    selected = "" if aggregate.headline.held_out else "; nothing is selected on the test set"
    return [
        f"{grid.dataset.title}{images}, {grid.protocol.epochs} epochs, protocol "
        f"{grid.protocol.name}: {counted(methods, 'method')} × "
        f"{counted(len(pairs), 'teacher-student pair')} × {counted(len(grid.seeds), 'seed')}.",
        f"{on}{selected}. Runs of one seed share initial weights, data order and augmentation, so "
        "methods are compared seed by seed.",
    ]


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
