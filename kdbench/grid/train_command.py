"""One cell, one seed: the flags of ``kdbench train`` to a run, and a run back to its flags."""

import json
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from kdbench.errors import UserError
from kdbench.grid.expand import expand
from kdbench.grid.grid import Grid, GridError, short
from kdbench.grid.parsing import parse
from kdbench.grid.run import Run
from kdbench.grid.settings import Protocol
from kdbench.grid.yaml_tree import parse_yaml, preset, presets, set_value


@dataclass(frozen=True)
class TrainFlags:
    """What ``kdbench train`` is told.

    Attributes:
        method: None for a network by itself. teacher: architecture, with a method.
        student: architecture. dataset, protocol: a name, or YAML.
        seed: of the run. options: of the method, ``KEY=VALUE``.
        overrides: of the grid, ``KEY=VALUE``.
    """

    student: str
    dataset: str
    protocol: str = "semckd"
    method: str | None = None
    teacher: str | None = None
    seed: int = 0
    options: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The command."""
        line = ["kdbench", "train"]
        for name in ("method", "teacher", "student", "dataset", "protocol", "seed"):
            value = getattr(self, name)
            line += [] if value is None else [f"--{name}", str(value)]
        for option in self.options:
            line += ["--option", option]
        for override in self.overrides:
            line += ["--set", override]
        return shlex.join(line)


def one_cell(flags: TrainFlags) -> tuple[Grid, tuple[Run, ...]]:
    """A grid of one cell, and the runs it needs, the asked one last.

    Raises:
        GridError: the flags contradict each other, or name what is not there.
    """
    if (flags.method is None) != (flags.teacher is None):
        raise GridError(["--method and --teacher go together; a network alone needs neither"])
    chosen: dict[str, Any] = {}
    for option in flags.options:
        set_value(chosen, option, "--option")
    if chosen and flags.method is None:
        raise GridError(["--option is of a method: give --method and --teacher, or use --set"])
    tree: dict[str, Any] = {
        "name": "cell",
        "dataset": parse_yaml(flags.dataset, f"--dataset {flags.dataset}"),
        "protocol": parse_yaml(flags.protocol, f"--protocol {flags.protocol}"),
        "seeds": [flags.seed],
        "pairs": [{"teacher": flags.teacher or flags.student, "student": flags.student}],
        "methods": [{flags.method: chosen}] if flags.method else [],
    }
    for override in flags.overrides:
        set_value(tree, override)
    grid = parse(tree, source="kdbench train")
    expansion = expand(grid)
    asked = expansion.cells[-1].runs[0]
    needed = {asked.id}
    for run in reversed(expansion.runs):  # those that others learn from come first
        if run.id in needed and run.teacher:
            needed.add(run.teacher.run)
    others = [run for run in expansion.runs if run.id in needed and run.id != asked.id]
    return grid, (*others, asked)


def command(run: Run, known: Callable[[str], Run]) -> str:
    """The ``kdbench train`` command that repeats a run; checked to give the same id.

    What the preset of the run's protocol says already is left out.

    Args:
        known: gives the run of an id, from which the command learns how a teacher was trained;
            raises ``UserError`` where nobody knows it.
    """
    own = {key: value for key, value in run.canonical.items() if key != "teacher"}
    fitting = []
    # The run's own preset first: it nearly always is the answer, and each trial reads a grid.
    candidates = [(one.protocol != run.protocol, len(str(one)), one) for one in _candidates(run)]
    for *_, flags in sorted(candidates, key=lambda candidate: candidate[:2]):
        found = _asked(flags)
        if found is not None and found.id == run.id:
            return str(flags)
        if found is not None and own == {
            k: v for k, v in found.canonical.items() if k != "teacher"
        }:
            fitting.append(flags)
    for base in fitting:
        for flags in _taught(run, known, base):
            found = _asked(flags)
            if found is not None and found.id == run.id:
                return str(flags)
    return "none gives the same number: kdbench, the method's file or its teacher has changed"


def _asked(flags: TrainFlags) -> Run | None:
    """The run that flags ask for; None where they are wrong."""
    try:
        return one_cell(flags)[1][-1]
    except UserError:
        return None


def _candidates(run: Run) -> Iterator[TrainFlags]:
    """Ways to ask for a run whose teacher is trained as its student is."""
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
        options = _options(run)
    for protocol in _protocols(run):
        for one in options:
            yield replace(base, protocol=protocol, options=one)


def _options(run: Run) -> tuple[tuple[str, ...], ...]:
    """The method's options: none, the weights of its terms, all."""
    every: dict[str, Any] = {
        "gamma": run.gamma, "alpha": run.alpha, "temperature": run.temperature,
    }  # fmt: skip
    if run.pretrain:
        every |= {"pretrain_epochs": run.pretrain[0], "pretrain_lr": run.pretrain[1]}
    for term in run.terms:
        of_term = {"beta": term.beta, **term.hyper}
        name = "" if len(run.terms) == 1 else f"{short(term.where)}."
        every |= {f"{name}{key}": value for key, value in of_term.items()}
    told = tuple(f"{key}={_flow(value)}" for key, value in every.items())
    betas = tuple(one for one in told if one.partition("=")[0].rpartition(".")[2] == "beta")
    return (), betas, told


def _protocols(run: Run) -> Iterator[str]:
    """Presets, presets with changes, and the recipe written out."""
    resolved = run.training.model_dump(mode="json", exclude_none=True)
    yield from presets()
    for name in presets():
        below = Protocol(**preset(name)).training(run.student).model_dump(mode="json")
        changed = {key: value for key, value in resolved.items() if value != below[key]}
        if "lr" in changed:  # also where the preset names this student
            changed["lr_of"] = {run.student: changed.pop("lr")}
        yield _flow({"preset": name, **changed})
    yield _flow(resolved)


def _taught(run: Run, known: Callable[[str], Run], base: TrainFlags) -> Iterator[TrainFlags]:
    """Ways to get the run's teacher: as imported, or as its own run says."""
    teacher = run.teacher
    if teacher is None:
        return
    if teacher.run.startswith("import-"):
        yield replace(base, overrides=(f"teachers={{{teacher.arch}: {teacher.run}}}",))
        return
    try:
        trained = known(teacher.run)
    except UserError:
        return
    if trained.teacher:  # an auxiliary: it stands between the run and the teacher of the pair
        method = "+".join(term.where for term in trained.terms)
        helper = (f"auxiliary={_flow({'student': trained.student, 'method': method})}",)
        base = replace(base, teacher=trained.teacher.arch, options=(*base.options, *helper))
        yield base
        try:
            trained = known(trained.teacher.run)
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
    """A value as YAML on one line; a mapping of nothing but ``short_for`` as that name."""
    if isinstance(value, dict):
        if set(value) == {short_for}:
            return str(value[short_for])
        return f"{{{', '.join(f'{key}: {_flow(one)}' for key, one in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    bare = isinstance(value, str) and re.fullmatch(r"[A-Za-z/][\w./+-]*", value)
    return value if bare and parse_yaml(value, "") == value else json.dumps(value)
