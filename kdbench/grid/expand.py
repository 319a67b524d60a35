"""Expand a ``Grid`` into its cells and runs, teachers before their students."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from kdbench.errors import UserError
from kdbench.grid.grid import Grid, GridError, Pair, Row, named_rows
from kdbench.grid.row_plan import (
    RowPlan,
    check_needs_no_labels,
    check_optimizer,
    check_peers,
    check_phase,
    check_ranks,
    plan_row,
)
from kdbench.grid.run import Cell, Run, Teacher
from kdbench.grid.settings import Auxiliary, Protocol
from kdbench.grid.yaml_tree import merged, option_tree
from kdbench.wording import counted

MOST_RUNS = 200_000
"""Runs of students in a grid."""


@dataclass(frozen=True)
class Expansion:
    """All cells and runs of a grid.

    Attributes:
        cells: for each pair the rows ``teacher``, ``student`` and the methods.
        runs: every run once, teachers before their students.
    """

    cells: tuple[Cell, ...]
    runs: tuple[Run, ...]


def expand(grid: Grid) -> Expansion:
    """Return all cells and runs of a grid.

    A run in several cells, such as a student's baseline or a teacher that is also a student, is
    trained once; in each cell it has the label of that cell's row.

    Raises:
        GridError: the methods of a row have different weights or both bring peers, one cannot train
            on the grid's ranks or with its optimiser, rows have the same label, or there are too
            many runs.
    """
    _check_number(grid)
    common = _rows(grid)
    cells: list[Cell] = []
    runs: dict[str, Run] = {}

    def cell(row: str, pair: Pair, first: Run, seeds: tuple[int, ...]) -> tuple[Run, ...]:
        members = tuple(first.with_seed(seed) for seed in seeds)
        for run in members:
            runs.setdefault(run.id, run)
        cells.append(Cell(row, pair.teacher, pair.student, members))
        return members

    for pair in grid.pairs:
        teacher = _imported(grid, pair)
        if teacher is None:
            (run,) = cell("teacher", pair, _teacher(grid, pair.teacher), (grid.teacher.seed,))
            teacher = Teacher(pair.teacher, run.id)
        else:
            cells.append(Cell("teacher", pair.teacher, pair.student, ()))
        alone = _alone(grid, grid.protocol, pair)
        cell("student", pair, alone, grid.seeds)
        for row in _rows(grid, pair) if pair.options else common:
            source = teacher
            if row.options.auxiliary:
                helper = _auxiliary(grid, row.options.auxiliary, teacher)
                runs.setdefault(helper.id, helper)
                source = Teacher(helper.student, helper.id)
            first = replace(alone, dataset=grid.dataset)
            cell(row.label, pair, _student(grid.protocol, row, source, first), grid.seeds)
    return Expansion(tuple(cells), tuple(runs.values()))


def _check_number(grid: Grid) -> None:
    """Refuse a grid that no memory holds, before it is expanded."""
    rows = sum(row.number_of_points(grid.sweep) for row in grid.methods)
    runs = len(grid.pairs) * (rows + 1) * len(grid.seeds)
    if runs > MOST_RUNS:
        raise GridError(
            [
                f"{grid.source}: {counted(runs, 'run')} ({counted(len(grid.pairs), 'pair')}, "
                f"{counted(rows + 1, 'row')}, {counted(len(grid.seeds), 'seed')}); at most "
                f"{MOST_RUNS:,} are accepted: split the grid"
            ]
        )


def _imported(grid: Grid, pair: Pair) -> Teacher | None:
    """Return the pair's teacher if the grid names an existing run for it, else None."""
    run_id = grid.teachers.get(pair.teacher)
    return Teacher(pair.teacher, run_id) if run_id else None


def _teacher(grid: Grid, arch: str) -> Run:
    """Return the run that trains a teacher."""
    protocol = grid.teacher.protocol or grid.protocol
    run = _alone(grid, protocol, Pair(teacher=arch, student=arch))
    return replace(run, dataset=grid.teacher.dataset or grid.dataset.labelled, method="teacher")


def _alone(grid: Grid, protocol: Protocol, pair: Pair) -> Run:
    """Return the run of a student trained alone, by cross-entropy, with the teachers' seed.

    It needs labels, so it never trains on a transfer set.
    """
    return Run(
        student=pair.student,
        teacher=None,
        dataset=grid.dataset.labelled,
        training=protocol.training(pair.student, pair.lr),
        gamma=1.0,
        alpha=0.0,
        temperature=protocol.temperature,
        terms=(),
        seed=grid.teacher.seed,
        protocol=protocol.name,
    )


def _student(protocol: Protocol, row: RowPlan, source: Teacher, alone: Run) -> Run:
    """Return a row's run on the pair of ``alone``."""
    training = alone.training
    phase = None
    if row.pretrains:
        own = row.options
        epochs = protocol.pretrain_epochs if own.pretrain_epochs is None else own.pretrain_epochs
        of_student = (own.pretrain_lr_of or {}).get(alone.student)
        phase = (epochs, own.pretrain_lr or of_student or protocol.pretrain_lr or training.lr)
    return replace(
        alone,
        teacher=source if row.needs_teacher else None,
        gamma=row.gamma,
        alpha=row.alpha if row.needs_teacher else 0.0,
        temperature=row.temperature,
        terms=row.terms,
        pretrain=phase,
        method=row.label,
    )


def _auxiliary(grid: Grid, spec: Auxiliary, teacher: Teacher) -> Run:
    """Return the run of an auxiliary teacher, with the teachers' seed.

    An auxiliary teacher is a student of the pair's teacher.
    """
    pair = Pair(teacher=teacher.arch, student=spec.student)
    row = plan_row(grid.protocol, Row(name=spec.method), {})
    return _student(grid.protocol, row, teacher, _alone(grid, grid.protocol, pair))


def _rows(grid: Grid, pair: Pair | None = None) -> list[RowPlan]:
    """Return the methods' rows, one for each combination of swept values.

    Args:
        grid: the grid.
        pair: whose options to apply; None: no pair's.
    """
    plans: list[RowPlan] = []
    errors = []
    where = f"pairs.{grid.pairs.index(pair)}.options" if pair else "methods"
    for row in grid.methods:
        of_pair = _of_pair(grid, pair, row) if pair else {}
        for label, point in row.points(grid.sweep):
            given = merged(row.options, of_pair)
            for option, value in point:
                given = merged(given, option_tree(option, value))
            try:
                check_peers(row)
                check_ranks(row, grid.executor.ranks)
                check_optimizer(row, grid.protocol)
                plan = plan_row(grid.protocol, row, given)
                check_phase(given, row, plan)
                if grid.dataset.transfer:
                    check_needs_no_labels(row, plan)
            except UserError as error:
                errors.append(f"{grid.source}: {where}.{row.short}: {error}")
                break
            plans.append(replace(plan, label=label))
    for label, count in Counter(plan.label for plan in plans).items():
        if count > 1:
            errors.append(f"{grid.source}: methods: {count} rows have the label {label}")
    if errors:
        raise GridError(errors)
    return plans


def _of_pair(grid: Grid, pair: Pair, row: Row) -> dict[str, Any]:
    """Return a pair's options of a row; those under its label win."""
    options: dict[str, Any] = {}
    for name in sorted(pair.options, key=lambda name: name == row.label):
        if any(found is row for found in named_rows(grid.methods, name)):
            options = merged(options, pair.options[name])
    return options
