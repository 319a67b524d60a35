"""A ``Grid`` to its cells and runs: what is trained, in the order in which it can be."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kdbench import registry
from kdbench.grid import Grid, GridError, Pair
from kdbench.run import Cell, Run, Teacher, Term
from kdbench.spec import OPTIONS, MethodOptions, Protocol


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

    Raises:
        GridError: weights that contradict each other.
    """
    rows = list(_rows(grid))
    cells: list[Cell] = []
    runs: dict[str, Run] = {}

    def add(run: Run) -> Run:
        return runs.setdefault(run.id, run)

    for pair in grid.pairs:
        teacher_run = _teacher(grid, pair.teacher)
        if teacher_run is not None:
            add(teacher_run)
        teacher = Teacher(pair.teacher, grid.teachers.get(pair.teacher) or _id(teacher_run))
        own = (teacher_run,) if teacher_run is not None else ()
        cells.append(Cell("teacher", pair.teacher, pair.student, own))
        alone = [add(_alone(grid, grid.protocol, pair, seed)) for seed in grid.seeds]
        cells.append(Cell("student", pair.teacher, pair.student, tuple(alone)))
        for row in rows:
            source = teacher
            if row.options.auxiliary:
                helper = _auxiliary(grid, row.options.auxiliary, teacher)
                add(helper)
                source = Teacher(helper.student, helper.id)
            first = _student(grid.protocol, pair, row, source, alone[0])
            members = tuple(add(replace(first, seed=seed)) for seed in grid.seeds)
            cells.append(Cell(row.label, pair.teacher, pair.student, members))
    return Expansion(tuple(cells), tuple(runs.values()))


def _id(run: Run | None) -> str:
    assert run is not None
    return run.id


def _teacher(grid: Grid, arch: str) -> Run | None:
    """The run that trains a teacher; None where the grid names a trained one."""
    if arch in grid.teachers:
        return None
    protocol = grid.teacher.protocol or grid.protocol
    run = _alone(grid, protocol, Pair(teacher=arch, student=arch), grid.teacher.seed)
    return replace(run, dataset=grid.teacher.dataset or grid.dataset, method="teacher")


def _alone(grid: Grid, protocol: Protocol, pair: Pair, seed: int) -> Run:
    """A network trained by itself: plain cross-entropy."""
    return Run(
        student=pair.student,
        teacher=None,
        dataset=grid.dataset,
        training=protocol.training(pair.student, pair.lr),
        gamma=1.0,
        alpha=0.0,
        temperature=protocol.temperature,
        terms=(),
        seed=seed,
        protocol=protocol.name,
    )


def _student(protocol: Protocol, pair: Pair, row: _Plan, source: Teacher, alone: Run) -> Run:
    """A row's run on a pair, with the seed of ``alone``."""
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


def _auxiliary(grid: Grid, spec: dict[Any, str], teacher: Teacher) -> Run:
    """The run of an auxiliary teacher: a student of the pair's teacher, with the teachers' seed."""
    pair = Pair(teacher=teacher.arch, student=spec["student"])
    row = _plan(grid.protocol, spec["method"], {})
    return _student(
        grid.protocol, pair, row, teacher, _alone(grid, grid.protocol, pair, grid.teacher.seed)
    )


def _rows(grid: Grid) -> Iterator[_Plan]:
    """The table's rows: the methods, each once for every value that is swept."""
    for row in grid.methods:
        axes = [
            [(key.rpartition(".")[2], value) for value in values]
            for key, values in grid.sweep.items()
            if key.rpartition(".")[0] == row.name
        ]
        for point in itertools.product(*axes):
            plan = _plan(grid.protocol, row.name, row.options | dict(point))
            swept = ", ".join(f"{key}={value}" for key, value in point)
            yield replace(plan, label=f"{plan.label}({swept})") if swept else plan


def _plan(protocol: Protocol, name: str, given: dict[str, Any]) -> _Plan:
    """Resolve a row's weights: the grid's word, else the protocol's, else the method's."""
    parts = name.split("+")
    together = "+".join(sorted(parts))
    preset = next(
        (
            dict(v)
            for k, v in protocol.methods.items()
            if "+".join(sorted(k.split("+"))) == together
        ),
        {},
    )
    general = {k: v for k, v in (preset | given).items() if k in OPTIONS}
    options = MethodOptions(**general)
    terms = []
    weights: dict[str, dict[str, float]] = {"gamma": {}, "alpha": {}, "temperature": {}}
    for part in parts:
        about = registry.describe(part)
        own = dict(protocol.methods.get(part, {}))
        own |= given if len(parts) == 1 else preset.get(part, {}) | given.get(part, {})
        for key in weights:
            value = own.get(key, about.objective.get(key))
            if value is not None:
                weights[key][part] = float(value)
        beta = own.get("beta")
        own_hyper = {k: v for k, v in own.items() if k not in OPTIONS or k in about.hyper}
        terms.append(
            Term(
                method=about.name,
                beta=float(about.beta if beta is None else beta),
                hyper=registry.hyper(part, own_hyper),
                source=about.sha256 if about.external else None,
                path=str(about.path) if about.external else None,
            )
        )
    resolved = {}
    for key, asked in weights.items():
        value = getattr(options, key)
        if value is None and len(set(asked.values())) > 1:
            told = ", ".join(f"{part} {weight}" for part, weight in asked.items())
            raise GridError([f"methods.{name}: {key}: the parts differ ({told}); give {key} here"])
        if value is None:
            value = next(iter(asked.values()), getattr(protocol, key))
        resolved[key] = float(value)
    about_all = [registry.describe(part) for part in parts]
    return _Plan(
        label=options.label or "+".join(Path(about.name).name for about in about_all),
        terms=tuple(sorted(terms, key=lambda term: term.method)),
        needs_teacher=any(about.needs_teacher for about in about_all),
        pretrains=any(about.has_pretrain for about in about_all),
        options=options,
        **resolved,
    )
