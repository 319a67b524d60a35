"""One cell, one seed: the flags of ``kdbench train`` to a run, and a run back to its flags."""

import json
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from kdbench import jobs, live, records
from kdbench.errors import UserError
from kdbench.expand import expand
from kdbench.grid import Grid, GridError, merged, parse, presets, set_value
from kdbench.run import Run
from kdbench.spec import Protocol


def one_cell(
    method: str | None,
    teacher: str | None,
    student: str,
    dataset: str,
    protocol: str,
    seed: int,
    options: Iterable[str] = (),
    overrides: Iterable[str] = (),
) -> tuple[Grid, tuple[Run, ...]]:
    """A grid of one cell, and the runs it needs, the asked one last.

    Raises:
        GridError: the flags contradict each other, or name what is not there.
    """
    if (method is None) != (teacher is None):
        raise GridError(["--method and --teacher go together; a network alone needs neither"])
    chosen: dict[str, Any] = {}
    for option in options:
        set_value(chosen, option, "--option")
    tree: dict[str, Any] = {
        "name": "cell",
        "dataset": _yaml(dataset, "--dataset"),
        "protocol": _yaml(protocol, "--protocol"),
        "seeds": [seed],
        "pairs": [{"teacher": teacher or student, "student": student}],
        "methods": [{method: chosen}] if method else [],
    }
    for override in overrides:
        set_value(tree, override, "--set")
    grid = parse(tree, source="kdbench train")
    expansion = expand(grid)
    asked = expansion.cells[-1].runs[0]
    needed = {asked.id}
    for run in reversed(expansion.runs):  # those that others learn from come first
        if run.id in needed and run.teacher:
            needed.add(run.teacher.run)
    return grid, tuple(run for run in expansion.runs if run.id in needed)


def run_cell(grid: Grid, runs: Sequence[Run], folder: Path, data: Path) -> None:
    """Train what is missing of a cell's runs, in this process."""
    todo = jobs.missing(runs, folder)
    executor = grid.executor.model_copy(update={"kind": "debug"})
    live.show(jobs.run_all(runs, folder, data, executor), todo, Console(soft_wrap=True))


def outcome(runs: Sequence[Run], folder: Path) -> str:
    """How the asked run, the last one, ended.

    Raises:
        UserError: it did not.
    """
    asked = runs[-1]
    record = records.read(folder, asked.id)
    if record is None:
        raise UserError(f"{asked.title}, {asked.method}: not trained; its teacher has failed")
    return f"{asked.id}  {live.outcome(asked, record)}"


def command(run: Run, runs: Path) -> str:
    """The ``kdbench train`` command that repeats a run; checked to give the same id.

    What the preset of the run's protocol says already is left out.
    """
    for words in _candidates(run):
        try:
            _, needed = one_cell(**words)
        except (GridError, UserError):
            continue
        if needed[-1].id == run.id:
            return _shell(words)
    return f"kdbench run (as {records.folder(runs, run.id) / 'run.json'} says)"


def _candidates(run: Run) -> Iterable[dict[str, Any]]:
    """Ways to ask for a run, the shortest first."""
    name = "+".join(term.where for term in run.terms)
    base: dict[str, Any] = {
        "method": name or None,
        "teacher": run.teacher.arch if run.teacher else (run.student if name else None),
        "student": run.student,
        "dataset": _flow(run.dataset.model_dump(exclude_none=True)),
        "seed": run.seed,
    }
    weights = {"gamma": run.gamma, "alpha": run.alpha, "temperature": run.temperature}
    full: dict[str, Any] = dict(weights)
    if run.pretrain:
        full |= {"pretrain_epochs": run.pretrain[0], "pretrain_lr": run.pretrain[1]}
    for term in run.terms:
        own = {"beta": term.beta, **term.hyper}
        full |= own if len(run.terms) == 1 else {f"{term.where}.{k}": v for k, v in own.items()}
    every = [f"{key}={_flow(value)}" for key, value in full.items()] if name else []
    betas = [one for one in every if one.partition("=")[0].rpartition(".")[2] == "beta"]
    resolved = run.training.model_dump(mode="json", exclude_none=True)
    for protocol in [*presets(), _flow(resolved | {"name": run.protocol})]:
        for options in ([], betas, every):
            yield {**base, "protocol": protocol, "options": options}
    for preset in presets():
        below = Protocol(**yaml.safe_load(_preset(preset))).training(run.student)
        changed = {k: v for k, v in resolved.items() if v != getattr(below, k)}
        asked = _flow(merged({"preset": preset}, changed))
        yield {**base, "protocol": asked, "options": every}


def _preset(name: str) -> str:
    from importlib import resources

    return resources.files("kdbench.presets").joinpath(f"{name}.yaml").read_text()


def _shell(words: dict[str, Any]) -> str:
    line = ["kdbench", "train"]
    for key in ("method", "teacher", "student", "dataset", "protocol", "seed"):
        if words[key] is not None:
            line += [f"--{key}", str(words[key])]
    for option in words["options"]:
        line += ["--option", option]
    return shlex.join(line)


def _flow(value: Any) -> str:
    """A value as YAML on one line; JSON is YAML."""
    if isinstance(value, dict) and set(value) == {"name"}:
        return str(value["name"])
    return json.dumps(value)


def _yaml(text: str, flag: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", error)
        raise GridError([f"{flag} {text}: not YAML: {problem}"]) from None
