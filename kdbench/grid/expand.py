"""A ``Grid`` to its cells and runs: what is trained, in the order in which it can be."""

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
    """All of a grid.

    Attributes:
        cells: the table: rows ``teacher``, ``student`` and the methods, for each pair.
        runs: every run once, those that others learn from before these.
    """

    cells: tuple[Cell, ...]
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class _Plan:
    """A row of the table under one protocol: all that is the same for each pair and seed."""

    label: str
    terms: tuple[Term, ...]
    gamma: float
    alpha: float
    temperature: float
    needs_teacher: bool
    pretrains: bool
    options: MethodOptions


def expand(grid: Grid) -> Expansion:
    """All cells and runs of a grid.

    A run that stands in several cells, such as a student's baseline or a teacher that is also a
    student, is trained once; each cell calls it by its own row's name.

    Raises:
        GridError: weights that contradict each other, rows that cannot be told apart.
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
            (own,) = cell("teacher", pair, _teacher(grid, pair.teacher), (grid.teacher.seed,))
            teacher = Teacher(pair.teacher, own.id)
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
    """The pair's teacher, where the grid names a trained one."""
    run_id = grid.teachers.get(pair.teacher)
    return Teacher(pair.teacher, run_id) if run_id else None


def _teacher(grid: Grid, arch: str) -> Run:
    """The run that trains a teacher."""
    protocol = grid.teacher.protocol or grid.protocol
    run = _alone(grid, protocol, Pair(teacher=arch, student=arch))
    return replace(run, dataset=grid.teacher.dataset or grid.dataset, method="teacher")


def _alone(grid: Grid, protocol: Protocol, pair: Pair) -> Run:
    """A network trained by itself, by plain cross-entropy; with the teachers' seed."""
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
    """A row's run on the pair of ``alone``."""
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
    """The run of an auxiliary teacher: a student of the pair's teacher, with the teachers' seed."""
    pair = Pair(teacher=teacher.arch, student=spec.student)
    row = _plan(grid.protocol, Row(name=spec.method), {})
    return _student(grid.protocol, row, teacher, _alone(grid, grid.protocol, pair))


def _rows(grid: Grid) -> list[_Plan]:
    """The table's rows: the methods, each once for every value that is swept."""
    found: list[_Plan] = []
    errors = []
    for row in grid.methods:
        for label, point in row.points(grid.sweep):
            given = row.options
            for option, value in point:
                given = merged(given, option_tree(option, value))
            try:
                plan = _plan(grid.protocol, row, given)
            except UserError as error:
                errors.append(f"{grid.source}: methods.{row.short}: {error}")
                break
            found.append(replace(plan, label=label))
    for label, count in Counter(plan.label for plan in found).items():
        errors += [f"{grid.source}: methods: {count} rows are called {label}"] if count > 1 else []
    if errors:
        raise GridError(errors)
    return found


def _plan(protocol: Protocol, row: Row, given: dict[str, Any]) -> _Plan:
    """Resolve a row's weights: the grid's word, else the protocol's, else the methods'."""
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
            methods[part].taught(term.hyper) for part, term in zip(row.parts, terms, strict=True)
        ),
        pretrains=any(one.has_pretrain for one in methods.values()),
        options=options,
        **weights,
    )


def _of_part(protocol: Protocol, part: str, own: dict[str, Any]) -> dict[str, Any]:
    """What is said of one method of a combination: what the protocol says of it alone, too."""
    return merged(protocol.methods.get(part, {}), own.get(short(part), {}))


def _weight(
    key: str,
    options: MethodOptions,
    protocol: Protocol,
    methods: Mapping[str, Description],
    of_part: Mapping[str, dict[str, Any]],
) -> float:
    """Gamma, alpha or T of a row.

    Raises:
        UserError: its methods ask for different ones, and nobody decides.
    """
    value = getattr(options, key)
    if value is None:
        asked = {
            part: of_part[part].get(key, one.objective.get(key)) for part, one in methods.items()
        }
        asked = {part: float(weight) for part, weight in asked.items() if weight is not None}
        if len(set(asked.values())) > 1:
            told = ", ".join(f"{short(part)} {weight:g}" for part, weight in asked.items())
            raise UserError(f"{key}: the parts differ ({told}); give {key} here")
        value = next(iter(asked.values()), getattr(protocol, key))
    return float(value)


def _term(
    part: str, method: Description, own: dict[str, Any], weights: Mapping[str, float]
) -> Term:
    """One method's term, defaults resolved."""
    # Where a method has a temperature, it is the objective's: told once.
    given = {key: own[key] for key in method.hyper if key in own} | {
        key: value for key, value in weights.items() if key == "temperature" and key in method.hyper
    }
    hyper = lookup.hyper(built_in_path(part), given)
    beta = own.get("beta")
    path = str(method.path) if method.external and part.endswith(".py") else None
    return Term(
        method=short(method.name),
        beta=float(method.beta if beta is None else beta) + 0.0,
        hyper={key: _settled(value, method.hyper[key]) for key, value in hyper.items()},
        source=method.sha256 if method.external else None,
        path=path,
    )


def _settled(value: Any, default: Any) -> Any:
    """2.0 as 2 where the default gives no type of its own: they are one number, and one id."""
    if default is None and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list | tuple):
        return tuple(_settled(one, None) for one in value)
    return value
