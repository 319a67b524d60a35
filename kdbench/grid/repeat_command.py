"""The command ``kdbench train`` that repeats a run: flags found by trying them."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from kdbench.errors import UserError, one_line
from kdbench.grid.grid import Grid, short
from kdbench.grid.run import Cell, Run, Term, is_imported
from kdbench.grid.settings import Protocol
from kdbench.grid.teacher_runs import teacher_runs
from kdbench.grid.train_command import TrainFlags, one_cell
from kdbench.grid.yaml_tree import parse_yaml, preset, presets
from kdbench.registry import lookup
from kdbench.registry.description import Description

DIGITS = 16
"""Digits of a file's sha256 that commands name."""
CHANGED = "no command repeats this run: kdbench or the method's file has changed"
BY_GRID = "no single command repeats this run and its teacher; kdbench run with the grid does"


class Commands:
    """The ``kdbench train`` commands that repeat runs; each is worked out once.

    Args:
        find: returns the run with an id, to learn how a teacher was trained; raises ``UserError``
            if there is no such run.
        publishable: returns a run without values that commands must not contain, such as paths.
        digests: source of a method outside kdbench -> name of its file, and of the files that it
            imports from the same folder -> sha256, as far as known.
        elsewhere: the files of methods outside kdbench may be on another machine, so they are not
            read. If False, they are read as far as their content is that of the run.

    Where files were not read, the commands say which content they need.
    """

    def __init__(
        self,
        find: Callable[[str], Run],
        publishable: Callable[[Run], Run] = lambda run: run,
        digests: Mapping[str, Mapping[str, str]] | None = None,
        *,
        elsewhere: bool = False,
    ) -> None:
        self._find = find
        self._elsewhere = elsewhere
        self._digests = digests or {}
        self._publishable = publishable
        self._commands: dict[str, str] = {}

    @classmethod
    def of_grid(
        cls,
        grid: Grid,
        cells: Iterable[Cell],
        publishable: Callable[[Run], Run],
        digests: Mapping[str, Mapping[str, str]] | None = None,
    ) -> "Commands":
        """Return the commands for the runs of a grid.

        The grid is expanded only if a teacher is in none of the cells.
        """
        cells = tuple(cells)
        runs = {run.id: run for cell in cells for run in cell.runs}
        outside = {c.method for c in cells if any(term.source for r in c.runs for term in r.terms)}

        def find(run_id: str) -> Run:
            if run_id not in runs:  # an auxiliary teacher, say
                runs.update(teacher_runs(grid, outside))
            if run_id not in runs:
                raise UserError(f"{run_id}: no run of this grid")
            return runs[run_id]

        return cls(find, publishable, digests, elsewhere=True)

    def __call__(self, run: Run) -> str:
        """Return the command that repeats a run, or a sentence that says that none does.

        Values that the preset of the run's protocol already contains are left out.
        """
        run = self._publishable(run)
        key = repr(run)  # the id does not contain paths or the protocol's name
        if key not in self._commands:
            outside = [term for term in run.terms if term.source and self._is_elsewhere(term)]
            stand_ins = {term.where: _stand_in(term, run) for term in outside}
            with lookup.standing_in(stand_ins):
                command = _command(
                    run,
                    lambda run_id: self._publishable(self._find(run_id)),
                    options_in_full=bool(outside),
                )
            needs = [need for term in outside for need in self._needs(term)]
            if needs and command not in (CHANGED, BY_GRID):
                command = f"{command}  # needs {', '.join(needs)}"
            self._commands[key] = command
        return self._commands[key]

    def _is_elsewhere(self, term: Term) -> bool:
        """Check whether the content that a run was trained with may not be at its place."""
        if self._elsewhere:
            return True
        try:
            return lookup.describe(term.where).sha256 != term.source
        except UserError:
            return True

    def _needs(self, term: Term) -> Iterator[str]:
        """Yield the files that a command needs, with their digests, in one line each."""
        source = str(term.source)
        digests = self._digests.get(source)
        if not digests:
            all_files = "of it and the files that it imports, if any"
            yield one_line(f"{term.where} with sha256 {source[:DIGITS]} ({all_files})")
            return
        (own, digest), *others = digests.items()
        where = PurePosixPath(term.path or own)
        package = "" if term.path else f"{term.method} from a package: "
        yield one_line(f"{package}{where} with sha256 {digest[:DIGITS]}")
        for name, digest in others:
            yield one_line(f"{where.parent / name} with sha256 {digest[:DIGITS]}")


def _stand_in(term: Term, run: Run) -> Description:
    """Describe a method whose file is elsewhere as far as its run needs it.

    Its defaults are the run's values, so the flags must give every value.
    """
    return Description(
        name=term.where,
        label=term.method,
        family="unknown",
        uses=(),
        path=Path(term.where),
        sha256=str(term.source),
        beta=term.beta,
        needs_teacher=run.teacher is not None,
        needs_teacher_when={},
        objective={},
        hyper=term.hyper,
        doc="",
        has_pretrain=run.pretrain is not None,
        external=True,
    )


def _command(run: Run, find: Callable[[str], Run], *, options_in_full: bool = False) -> str:
    """Try flags until they give a run with the same id."""
    own = _without_teacher(run)
    fitting = []
    # The preset of the run's protocol first: it is nearly always right, and a trial reads a grid.
    candidates = sorted(
        _candidates(run, options_in_full),
        key=lambda flags: (flags.protocol != run.protocol, len(str(flags))),
    )
    for flags in candidates:
        candidate = _requested_run(flags)
        if candidate is not None and candidate.id == run.id:
            return str(flags)
        if candidate is not None and _without_teacher(candidate) == own:
            fitting.append(flags)
    for base in fitting:
        for flags in _with_teacher(run, find, base):
            candidate = _requested_run(flags)
            if candidate is not None and candidate.id == run.id:
                return str(flags)
    return CHANGED if not fitting else BY_GRID


def _without_teacher(run: Run) -> dict[str, Any]:
    return {key: value for key, value in run.canonical.items() if key != "teacher"}


def _requested_run(flags: TrainFlags) -> Run | None:
    """Return the run that flags request; None if they are wrong."""
    try:
        return one_cell(flags)[1][-1]
    except UserError:
        return None


def _candidates(run: Run, options_in_full: bool) -> Iterator[TrainFlags]:
    """Yield flags for a run whose teacher is trained by the same protocol as its student."""
    base = TrainFlags(
        student=run.student,
        dataset=_flow(run.dataset.model_dump(exclude_none=True), "name"),
        seed=run.seed,
    )
    options: tuple[tuple[str, ...], ...] = ((),)
    if run.terms:
        method = "+".join(term.where for term in run.terms)
        teacher = run.teacher.arch if run.teacher else run.student
        base = replace(base, method=method, teacher=teacher)
        options = _options(run)[-1:] if options_in_full else _options(run)
    for protocol in _protocols(run):
        for chosen in options:
            yield replace(base, protocol=protocol, options=chosen)


def _options(run: Run) -> tuple[tuple[str, ...], ...]:
    """Return sets of the method's options: none, the betas of its terms, all."""
    values: dict[str, Any] = {
        "gamma": run.gamma, "alpha": run.alpha, "temperature": run.temperature,
    }  # fmt: skip
    if run.pretrain:
        values |= {"pretrain_epochs": run.pretrain[0], "pretrain_lr": run.pretrain[1]}
    for term in run.terms:
        options = {"beta": term.beta, **term.hyper}
        prefix = "" if len(run.terms) == 1 else f"{short(term.where)}."
        values |= {f"{prefix}{key}": value for key, value in options.items()}
    texts = {key: f"{key}={_flow(value)}" for key, value in values.items()}
    betas = tuple(text for key, text in texts.items() if key.rpartition(".")[2] == "beta")
    return (), betas, tuple(texts.values())


def _protocols(run: Run) -> Iterator[str]:
    """Yield each preset, each preset with the run's changes, and the recipe in full."""
    resolved = run.training.model_dump(mode="json", exclude_none=True)
    yield from presets()
    for name in presets():
        below = Protocol(**preset(name)).training(run.student).model_dump(mode="json")
        changed = {key: value for key, value in resolved.items() if value != below[key]}
        if "lr" in changed:  # lr_of, because the preset may list this student there
            changed["lr_of"] = {run.student: changed.pop("lr")}
        yield _flow({"preset": name, **changed})
    yield _flow(resolved)


def _with_teacher(run: Run, find: Callable[[str], Run], base: TrainFlags) -> Iterator[TrainFlags]:
    """Yield ``base`` with flags for the run's teacher: imported, or trained as its run says."""
    teacher = run.teacher
    if teacher is None:
        return
    if is_imported(teacher.run):
        yield replace(base, overrides=(f"teachers={{{teacher.arch}: {teacher.run}}}",))
        return
    try:
        trained = find(teacher.run)
    except UserError:
        return
    if trained.teacher:  # an auxiliary, which is taught by the teacher of the pair
        method = "+".join(term.where for term in trained.terms)
        helper = (f"auxiliary={_flow({'student': trained.student, 'method': method})}",)
        base = replace(base, teacher=trained.teacher.arch, options=(*base.options, *helper))
        yield base
        try:
            trained = find(trained.teacher.run)
        except UserError:
            return
    seed = () if trained.seed == 0 else (f"teacher.seed={trained.seed}",)
    data: tuple[str, ...] = ()
    if trained.dataset != run.dataset:
        data = (f"teacher.dataset={_flow(trained.dataset.model_dump(exclude_none=True), 'name')}",)
    if seed or data:
        yield replace(base, overrides=seed + data)
    for protocol in _protocols(trained):
        yield replace(base, overrides=(*seed, *data, f"teacher.protocol={protocol}"))


def _flow(value: Any, short_for: str = "") -> str:
    """Return a value as one line of YAML; a mapping of ``short_for`` alone as that value."""
    if isinstance(value, dict):
        if set(value) == {short_for}:
            return str(value[short_for])
        return f"{{{', '.join(f'{key}: {_flow(item)}' for key, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    bare = isinstance(value, str) and re.fullmatch(r"[A-Za-z/][\w./+-]*", value)
    return value if bare and parse_yaml(value, "") == value else json.dumps(value)
