"""The flags of the command ``kdbench train``, and the run that they request."""

import shlex
from dataclasses import dataclass
from typing import Any

from kdbench.grid.expand import expand
from kdbench.grid.grid import Grid, GridError
from kdbench.grid.parsing import parse
from kdbench.grid.run import Run
from kdbench.grid.yaml_tree import parse_yaml, set_value


@dataclass(frozen=True)
class TrainFlags:
    """The flags of ``kdbench train`` that define a run.

    Attributes:
        student: architecture.
        dataset: name, or settings as YAML.
        protocol: name of a preset, or settings as YAML.
        method: None for a network trained alone.
        teacher: architecture; given together with ``method``.
        seed: of the run.
        options: of the method, each ``KEY=VALUE``.
        overrides: of the grid, each ``KEY=VALUE``.
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
        """Return the command line."""
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
    """Return a grid of one cell and the runs to train, the requested run last.

    Raises:
        GridError: the flags contradict each other, or contain an unknown name or a wrong value.
    """
    if (flags.method is None) != (flags.teacher is None):
        raise GridError(
            ["give --method and --teacher together, or neither to train a network alone"]
        )
    chosen: dict[str, Any] = {}
    for option in flags.options:
        set_value(chosen, option, "--option")
    if chosen and flags.method is None:
        raise GridError(["--option is for a method: give --method and --teacher, or use --set"])
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
    requested = expansion.cells[-1].runs[0]
    needed = {requested.id}
    for run in reversed(expansion.runs):  # teachers come before their students
        if run.id in needed and run.teacher:
            needed.add(run.teacher.run)
    others = [run for run in expansion.runs if run.id in needed and run.id != requested.id]
    return grid, (*others, requested)
