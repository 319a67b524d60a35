"""Expand a ``Grid`` into its cells and runs, teachers before their students."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from kdbench.errors import UserError
from kdbench.grid.grid import Grid, GridError, Pair, Row, short, sorted_name
from kdbench.grid.run import Cell, Run, Teacher, Term
from kdbench.grid.settings import OPTIONS, Auxiliary, MethodOptions, Protocol
from kdbench.grid.yaml_tree import merged, option_tree
from kdbench.registry import lookup
from kdbench.registry.description import OBJECTIVE_WEIGHTS, Description
from kdbench.registry.lookup import built_in_path


@dataclass(frozen=True)
class Expansion:
    """All cells and runs of a grid.

    Attributes:
        cells: for each pair the rows ``teacher``, ``student`` and the methods.
        runs: every run once, teachers before their students.
    """

    cells: tuple[Cell, ...]
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class _Plan:
    """A row of the table under one protocol: the values that all pairs and seeds share."""

    label: str
    terms: tuple[Term, ...]
    gamma: float
    alpha: float
    temperature: float
    needs_teacher: bool
    pretrains: bool
    options: MethodOptions


def expand(grid: Grid) -> Expansion:
    """Return all cells and runs of a grid.

    A run in several cells, such as a student's baseline or a teacher that is also a student, is
    trained once; in each cell it has the label of that cell's row.

    Raises:
        GridError: the methods of a row have different weights, or rows have the same label.
    """
    rows = _rows(grid)
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
        for row in rows:
            source = teacher
            if row.options.auxiliary:
                helper = _auxiliary(grid, row.options.auxiliary, teacher)
                runs.setdefault(helper.id, helper)
                source = Teacher(helper.student, helper.id)
            cell(row.label, pair, _student(grid.protocol, row, source, alone), grid.seeds)
    return Expansion(tuple(cells), tuple(runs.values()))


def _imported(grid: Grid, pair: Pair) -> Teacher | None:
    """Return the pair's teacher if the grid names an existing run for it, else None."""
    run_id = grid.teachers.get(pair.teacher)
    return Teacher(pair.teacher, run_id) if run_id else None


def _teacher(grid: Grid, arch: str) -> Run:
    """Return the run that trains a teacher."""
    protocol = grid.teacher.protocol or grid.protocol
    run = _alone(grid, protocol, Pair(teacher=arch, student=arch))
    return replace(run, dataset=grid.teacher.dataset or grid.dataset, method="teacher")


def _alone(grid: Grid, protocol: Protocol, pair: Pair) -> Run:
    """Return the run of a student trained alone, by cross-entropy, with the teachers' seed."""
    return Run(
        student=pair.student,
        teacher=None,
        dataset=grid.dataset,
        training=protocol.training(pair.student, pair.lr),
        gamma=1.0,
        alpha=0.0,
        temperature=protocol.temperature,
        terms=(),
        seed=grid.teacher.seed,
        protocol=protocol.name,
    )


def _student(protocol: Protocol, row: _Plan, source: Teacher, alone: Run) -> Run:
    """Return a row's run on the pair of ``alone``."""
    training = alone.training
    phase = None
    if row.pretrains:
        epochs = row.options.pretrain_epochs
        lr = row.options.pretrain_lr or protocol.pretrain_lr or training.lr
        phase = (protocol.pretrain_epochs if epochs is None else epochs, lr)
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
    row = _plan(grid.protocol, Row(name=spec.method), {})
    return _student(grid.protocol, row, teacher, _alone(grid, grid.protocol, pair))


def _rows(grid: Grid) -> list[_Plan]:
    """Return the methods' rows, one for each combination of swept values."""
    plans: list[_Plan] = []
    errors = []
    for row in grid.methods:
        for label, point in row.points(grid.sweep):
            given = row.options
            for option, value in point:
                given = merged(given, option_tree(option, value))
            try:
                plan = _plan(grid.protocol, row, given)
                _check_phase(row, plan)
            except UserError as error:
                errors.append(f"{grid.source}: methods.{row.short}: {error}")
                break
            plans.append(replace(plan, label=label))
    for label, count in Counter(plan.label for plan in plans).items():
        if count > 1:
            errors.append(f"{grid.source}: methods: {count} rows have the label {label}")
    if errors:
        raise GridError(errors)
    return plans


def _check_phase(row: Row, plan: _Plan) -> None:
    """Refuse settings of a pretraining phase that the row does not have.

    Raises:
        UserError: the row sets the phase's length or rate.
    """
    given = [key for key in ("pretrain_epochs", "pretrain_lr") if row.options.get(key) is not None]
    if given and not plan.pretrains:
        about = [lookup.describe(built_in_path(part)) for part in row.parts]
        phases = [
            f"{method.label} has a pretraining phase only with "
            + " or ".join(f"{key}: {value}" for key, value in method.pretrains_when.items())
            for method in about
            if method.has_pretrain
        ]
        raise UserError(f"{given[0]}: {'; '.join(phases)}")


def _plan(protocol: Protocol, row: Row, given: dict[str, Any]) -> _Plan:
    """Resolve a row's values: the grid's, else the protocol's, else the methods' defaults."""
    preset = next(
        (
            options
            for name, options in protocol.methods.items()
            if sorted_name(name) == row.sorted_name
        ),
        {},
    )
    own = merged(preset, given)
    options = MethodOptions(**{key: value for key, value in own.items() if key in OPTIONS})
    methods = {part: lookup.describe(built_in_path(part)) for part in row.parts}
    of_part = {
        part: own if len(row.parts) == 1 else _of_part(protocol, part, own) for part in row.parts
    }
    weights = {key: _weight(key, options, protocol, methods, of_part) for key in OBJECTIVE_WEIGHTS}
    terms = [_term(part, methods[part], of_part[part], weights) for part in row.parts]
    return _Plan(
        label=row.label,
        terms=tuple(sorted(terms, key=lambda term: term.method)),
        needs_teacher=any(
            methods[part].needs_teacher_with(term.hyper)
            for part, term in zip(row.parts, terms, strict=True)
        ),
        pretrains=any(
            methods[part].pretrains_with(term.hyper)
            for part, term in zip(row.parts, terms, strict=True)
        ),
        options=options,
        **weights,
    )


def _of_part(protocol: Protocol, part: str, own: dict[str, Any]) -> dict[str, Any]:
    """Return one method's options in a combination, over the protocol's for the method alone."""
    return merged(protocol.methods.get(part, {}), own.get(short(part), {}))


def _weight(
    key: str,
    options: MethodOptions,
    protocol: Protocol,
    methods: Mapping[str, Description],
    of_part: Mapping[str, dict[str, Any]],
) -> float:
    """Return gamma, alpha or temperature of a row.

    Raises:
        UserError: the row sets none, and its methods have different ones.
    """
    value = getattr(options, key)
    if value is None:
        given = {
            part: of_part[part].get(key, method.objective.get(key))
            for part, method in methods.items()
        }
        weights = {part: float(weight) for part, weight in given.items() if weight is not None}
        if len(set(weights.values())) > 1:
            listed = ", ".join(f"{short(part)} {weight:g}" for part, weight in weights.items())
            raise UserError(f"{key}: the methods differ ({listed}); set {key} for this row")
        value = next(iter(weights.values()), getattr(protocol, key))
    return float(value)


def _term(
    part: str, method: Description, own: dict[str, Any], weights: Mapping[str, float]
) -> Term:
    """Return one method's term with defaults."""
    # A method's temperature is always the objective's.
    given = {key: own[key] for key in method.hyper if key in own} | {
        key: value for key, value in weights.items() if key == "temperature" and key in method.hyper
    }
    hyper = lookup.hyper(built_in_path(part), given)
    beta = own.get("beta")
    path = str(method.path) if method.external and part.endswith(".py") else None
    return Term(
        method=short(method.name),
        beta=float(method.beta if beta is None else beta) + 0.0,
        hyper={key: _normalised(value, method.hyper[key]) for key, value in hyper.items()},
        source=method.sha256 if method.external else None,
        path=path,
        version=1 if method.external else method.version,
    )


def _normalised(value: Any, default: Any) -> Any:
    """Turn 2.0 into 2 if the default has no type, so that equal numbers give equal ids."""
    if default is None and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list | tuple):
        return tuple(_normalised(item, None) for item in value)
    return value
