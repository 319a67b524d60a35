"""Differences between the protocols of two grids, and between the data of their runs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from kdbench.grid.grid import sorted_name
from kdbench.grid.run import Cell, Run
from kdbench.grid.settings import Protocol
from kdbench.runs.data_digests import recorded
from kdbench.runs.evidence import Evidence

NOT_OF_ALL_ROWS = {"name", "source", "methods", "lr_of"}
"""Names, and settings of single methods or students, which do not concern every row."""


def differing(first: Evidence, second: Evidence) -> list[str]:
    """List the differences of two grids' protocols, e.g. ``epochs 240 and 60``.

    Learning rates of students count if both grids have the student or the pair. For the options of
    single methods see ``option_differences``.
    """
    left, right = first.grid.protocol, second.grid.protocol
    differences = [
        f"{key} {_as_text(getattr(left, key))} and {_as_text(getattr(right, key))}"
        for key in type(left).model_fields
        if key not in NOT_OF_ALL_ROWS and getattr(left, key) != getattr(right, key)
    ]
    if first.grid.dataset.canonical != second.grid.dataset.canonical:
        differences.insert(0, f"data {first.grid.dataset.title} and {second.grid.dataset.title}")
    if left.lr == right.lr:
        differences += _rates(first, second)
    return differences


def _rates(first: Evidence, second: Evidence) -> Iterator[str]:
    """Yield the students, or single pairs, that the grids train at different rates."""
    left, right = (_trained(evidence) for evidence in (first, second))
    common = [pair for pair in left if pair in right]
    others = {cell.student for cell in right.values()}
    named = set()
    for student in dict.fromkeys(cell.student for cell in left.values()):
        rates = [e.grid.protocol.training(student).lr for e in (first, second)]
        if student in others and rates[0] != rates[1]:
            named.add(student)
            yield f"lr of {student} {rates[0]} and {rates[1]}"
    for pair in common:
        rates = [cells[pair].runs[0].training.lr for cells in (left, right)]
        if left[pair].student not in named and rates[0] != rates[1]:
            yield f"lr of {pair} {rates[0]} and {rates[1]}"


def _trained(evidence: Evidence) -> dict[str, Cell]:
    """Return pair -> a cell of its student."""
    cells = (cell for cell in evidence.cells if cell.method != "teacher" and cell.runs)
    return {cell.pair: cell for cell in cells}


def option_differences(first: Evidence, second: Evidence, rows: Iterable[str]) -> list[str]:
    """List options that the grids' protocols give to the methods of some rows, where they differ.

    Args:
        first: a grid.
        second: another grid.
        rows: labels of rows of either grid.
    """
    left, right = (_options(evidence.grid.protocol) for evidence in (first, second))
    names = dict.fromkeys(
        name
        for evidence in (first, second)
        for cell in evidence.cells
        if cell.method in rows and cell.runs
        for name in _entries(cell.runs[0])
    )
    differences = []
    for name in names:
        ours, theirs = left.get(name, {}), right.get(name, {})
        differences += [
            f"{name}.{key} {_option(ours, key)} and {_option(theirs, key)}"
            for key in dict.fromkeys([*ours, *theirs])
            if ours.get(key) != theirs.get(key)
        ]
    return differences


def _options(protocol: Protocol) -> dict[str, Mapping[str, Any]]:
    return {sorted_name(name): options for name, options in protocol.methods.items()}


def _entries(run: Run) -> list[str]:
    """Return the entries of a protocol that set options of a run: its row's, and its methods'."""
    methods = [term.method for term in run.terms]
    return list(dict.fromkeys([sorted_name("+".join(methods)), *methods]))


def _option(options: Mapping[str, Any], key: str) -> str:
    return _as_text(options[key]) if key in options else "unset"


def _as_text(value: object) -> str:
    if value is None:
        return "unset"
    return str(value.canonical if hasattr(value, "canonical") else value)


def common_rows(first: Evidence, second: Evidence) -> list[str]:
    """Return the labels of the rows that both grids have."""
    others = {cell.method for cell in second.cells}
    return [label for label in dict.fromkeys(c.method for c in first.cells) if label in others]


def different_teachers(first: Iterable[Cell], second: Iterable[Cell]) -> list[str]:
    """List the pairs on which two rows learned from different teachers.

    Args:
        first: cells of a row, in one grid.
        second: cells of a row, in another grid.
    """
    ours, theirs = (
        {
            cell.pair: run.teacher.run
            for cell in cells
            for run in cell.runs[:1]
            if run.teacher and run.teacher.arch == cell.teacher
        }
        for cells in (first, second)
    )
    return [pair for pair, teacher in ours.items() if theirs.get(pair, teacher) != teacher]


def check_same_data(grids: Sequence[Evidence]) -> None:
    """Check that the runs of several grids on one data set were made of the same data.

    Raises:
        DataChanged: they were not.
    """
    source = ", ".join(dict.fromkeys(evidence.grid.source for evidence in grids))
    runs = (run for evidence in grids for cell in evidence.cells for run in cell.runs)
    recorded(source, runs, {k: v for evidence in grids for k, v in evidence.records.items()})
