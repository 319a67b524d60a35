"""The details of each row of the main table, as JSON for the page's script."""

from collections.abc import Sequence
from typing import Any

from kdbench.report import numbers
from kdbench.report.page.main_table import Column, TableRow
from kdbench.report.text import places_of_methods
from kdbench.stats.aggregate import Aggregate
from kdbench.stats.decision import Decision
from kdbench.stats.standings import Standing
from kdbench.wording import counted

Lines = list[tuple[str, str]]


STATES = {"leading": "may be the best", "behind": "behind: another row is better"}
WHY = {
    "noisy": "runs differ too much",
    "troubled": "a run diverged or failed",
    "student": "not shown to beat training alone",
}


def details(
    aggregate: Aggregate, rows: Sequence[TableRow], columns: Sequence[Column]
) -> list[dict[str, Any]]:
    """Collect the details of all rows, in their order.

    Args:
        aggregate: the grid's statistics.
        rows: of the main table.
        columns: of the main table.
    """
    return [_row(row, aggregate, columns) for row in rows]


def verdict(aggregate: Aggregate, name: str) -> str:
    """Say in words where a method stands over pairs; empty if it is not ranked."""
    state = aggregate.decision.recommendation.state.get(name, "")
    if state == "unplaced":
        return f"cannot be placed: {places_of_methods.reason(aggregate, name)}"
    return STATES.get(state, "")


def verdict_on_pair(decision: Decision, pair: str, name: str) -> str:
    """Say in words where a method stands on a pair; empty if it is not ranked."""
    advice = decision.on_pair[pair]
    if name in advice.why:
        return f"cannot be placed: {', '.join(WHY[word] for word in advice.why[name])}"
    return STATES.get(advice.state.get(name, ""), "")


def place(standing: Standing | None) -> Lines:
    """List rank range and distance to the best; nothing if a row is not ranked."""
    if standing is None:
        return []
    low, high = standing.rank_low, standing.rank_high
    lines = [("Rank", str(low) if low == high else f"{low} to {high}")]
    if numbers.known(standing.behind):
        lines.append(("At most behind the best", f"{numbers.number(standing.behind)} points"))
    return lines


def _row(row: TableRow, aggregate: Aggregate, columns: Sequence[Column]) -> dict[str, Any]:
    paper = [("Paper", row.about)] if row.about else []
    if row.year:
        paper.append(("Year", row.year))
    if not row.baseline:
        paper.append(("Family", row.family))
    if row.facts.source:
        paper.append(("Source", row.facts.source))
    sections = [("Over pairs", _over(row, aggregate)), ("Method", paper)]
    return {
        "name": row.name,
        "sections": [(title, lines) for title, lines in sections if lines],
        "links": row.facts.links,
        "bibtex": row.facts.bibtex,
        "cells": {
            column.name: cell.index
            for column, cell in zip(columns, row.cells, strict=True)
            if cell.index is not None
        },
    }


def _over(row: TableRow, aggregate: Aggregate) -> Lines:
    decision = aggregate.decision
    lines: Lines = []
    if numbers.known(row.accuracy):
        pairs = len(decision.over.pairs) or len(decision.pairs)
        lines.append((f"Mean of {counted(pairs, 'pair')}", f"{numbers.number(row.accuracy)} %"))
    if words := verdict(aggregate, row.name):
        lines.append(("Verdict", words))
    contrast = row.overall
    if contrast:
        value = numbers.with_interval(contrast.diff, contrast.low, contrast.high)
        common = f"{counted(contrast.pairs, 'pair')}, {counted(contrast.n, 'seed')}"
        lines.append((f"− {decision.baseline}", f"{value} points, {common}"))
        if contrast.known:
            lines += [
                (f"p, adjusted for {decision.rows} rows", numbers.p_value(contrast.p_adj)),
                ("Degrees of freedom", numbers.number(contrast.df, 1)),
            ]
    lines += place(row.standing)
    if numbers.known(row.times) and row.name != decision.baseline:
        lines.append((f"Training time / {decision.baseline}", numbers.times(row.times)))
    return lines
