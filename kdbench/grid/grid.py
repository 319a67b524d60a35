"""``Grid``: a grid of experiments whose values and names have been checked.

``parsing.load`` reads a grid from YAML, and ``expand`` returns its runs. Imports no torch.
"""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from kdbench.errors import UserError, readable
from kdbench.grid.resources import Slurm
from kdbench.grid.run import pair_name
from kdbench.grid.settings import Dataset, Protocol
from kdbench.grid.value_types import Count, Form, Line, Positive, Rate, Strict, Weight

MOST_PROCESSES = 1024
"""Processes, and threads of a process, that no machine exceeds with profit."""
LONGEST_NAME = 100
"""Characters of a grid's name: a folder of several grids has all their names."""
IN_RESULTS = ("analyses", "index.html", "transfer")
"""Files and folders in ``results/`` that are not a grid's."""
DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")
"""Names that Windows gives to devices, in small letters; no file can have them there."""


class GridError(UserError):
    """All mistakes in a grid, one line each."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = tuple(map(readable, lines))  # a line break in a name does not end the line
        super().__init__("\n".join(self.lines))


def _usable(name: str) -> str:
    """Refuse names that a folder in ``results/`` cannot have on every system."""
    if len(name) > LONGEST_NAME:
        raise ValueError(f"expected at most {LONGEST_NAME} characters")
    if name.casefold() in IN_RESULTS:
        listed = ", ".join(IN_RESULTS)
        raise ValueError(f"{name}: results/ has other files of this name; not accepted: {listed}")
    if DEVICES.fullmatch(name.casefold()) or name.endswith("."):
        raise ValueError(f"{name}: Windows accepts no folder of this name; choose another")
    return name


Name = Annotated[
    str,
    Form("[A-Za-z0-9][A-Za-z0-9._-]*", "letters, digits and . _ -, the first a letter or a digit"),
    AfterValidator(_usable),
]
Device = Annotated[str, Form("auto|cpu|cuda(:[0-9]{1,3})?", "auto, cpu, cuda or cuda:N")]
RunId = Annotated[str, Form("[A-Za-z0-9][A-Za-z0-9._-]{0,99}", "the id of a run")]


class Pair(Strict):
    """A teacher's and a student's architecture.

    Attributes:
        teacher: architecture.
        student: architecture.
        lr: learning rate of this student; None: the protocol's.
        options: row -> options of that row on this pair, over its own; a row is named by its label
            or by its method, which names all rows of that method that have no such label.
    """

    teacher: str
    student: str
    lr: Rate | None = None
    options: dict[str, dict[str, Any]] = Field(default={})

    def __str__(self) -> str:
        """Return ``TEACHER -> STUDENT``."""
        return pair_name(self.teacher, self.student)

    @property
    def options_text(self) -> str:
        """The options in words, ``dkd: rest 2; kd: alpha 3``; "" if there are none."""
        return "; ".join(f"{row}: {_words(options)}" for row, options in self.options.items())


def _words(options: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} ({_words(value)})" if isinstance(value, Mapping) else f"{key} {value}"
        for key, value in options.items()
    )


class TeacherSpec(Strict):
    """Settings for training the teachers that differ from the students'.

    Attributes:
        seed: of the teachers' training; all students of a pair share one teacher.
        dataset: None: the grid's.
        protocol: None: the grid's.
    """

    seed: Count = 0
    dataset: Dataset | None = None
    protocol: Protocol | None = None


class Executor(Strict):
    """Where runs are trained; changes results only by rounding.

    Attributes:
        kind: debug: in this process; local: workers on this machine; slurm: jobs on a cluster;
            auto: local.
        workers: number of processes; None: one per GPU, else the number that
            ``kdbench doctor --tune`` measured as fastest with this many threads, else one per core.
        threads: of a worker on a CPU. Sums are split among threads and may round differently with
            another number of threads, so records store it.
        ranks: processes, one per GPU, that train a cohort together, each on its share of the batch.
            The batch and the method's view of it stay the same, but sums may round differently, so
            records store it.
        cohort: maximum number of learners that share a teacher's forward.
        checkpoint_seconds: time between checkpoints, the most that is lost if a process is killed;
            longer if writing them would take more than 1 % of the time; 0: one after every step.
        device: auto, cpu, cuda or cuda:N.
        graphs: replay steps as CUDA graphs, which gives the same numbers faster. auto: on a GPU,
            where the method allows it; always: refuse to train without; never: do not.
        streams: learners of a cohort whose graphs a GPU runs at the same time; each stream needs
            the memory of a learner.
        tensorboard: write curves for TensorBoard to the runs' folders.
        slurm: resources and limits of jobs on a cluster.
    """

    kind: Literal["auto", "local", "debug", "slurm"] = "auto"
    workers: Annotated[Positive, Field(le=MOST_PROCESSES)] | None = None
    threads: Annotated[Positive, Field(le=MOST_PROCESSES)] = 1
    ranks: Annotated[Positive, Field(le=MOST_PROCESSES)] = 1
    cohort: Positive = 16
    checkpoint_seconds: Weight = 60.0
    device: Device = "auto"
    graphs: Literal["auto", "always", "never"] = "auto"
    streams: Annotated[Positive, Field(le=MOST_PROCESSES)] = 4
    tensorboard: bool = False
    slurm: Slurm = Slurm()


class Report(Strict):
    """Settings of a leaderboard.

    Attributes:
        reference: "PAPER/TABLE" of the published figures to show next to the results.
        ari_of: method whose average relative improvement over the others is shown.
        baseline: method to which differences are computed.
        tie: largest mean difference, in points, that counts as a tie between methods.
        answers: row, by label or by method -> answer (``Method.answers``) whose test accuracy the
            row shows instead of the deployed network's, e.g. ``mean`` of networks that learn
            together; the names are the method's.
        supports: claims that the results support, shown at the top.
        against: claims that the results do not support, likewise.
    """

    reference: str | None = None
    ari_of: str | None = None
    baseline: str = "kd"
    tie: Weight = 0.2
    answers: dict[str, str] = Field(default={})
    supports: str = ""
    against: str = ""


def short(method: str) -> str:
    """Return a method's name without folders and ``.py``, which plugins have."""
    return re.split(r"[/\\]", method)[-1].removesuffix(".py")


def sorted_name(name: str) -> str:
    """Return the short name of a combination with its methods sorted: ``at+sp`` for ``sp+at``."""
    return "+".join(sorted(map(short, name.split("+"))))


Point = tuple[tuple[str, Any], ...]
"""The (option, value) pairs of a row of a sweep; empty if the row is not swept."""


class Row(Strict):
    """One entry of ``methods``.

    Attributes:
        name: methods joined by ``+``; for a plugin its absolute path.
        options: ``MethodOptions`` and hyper-parameters; in a combination each method's own options
            are a mapping under its short name.
    """

    name: str
    options: dict[str, Any] = Field(default_factory=dict)

    @property
    def parts(self) -> tuple[str, ...]:
        """The methods."""
        return tuple(self.name.split("+"))

    @property
    def short(self) -> str:
        """Name without folders, e.g. ``semckd+mine``."""
        return "+".join(map(short, self.parts))

    @property
    def sorted_name(self) -> str:
        """``short`` with sorted methods, the same for a combination in any order."""
        return sorted_name(self.name)

    @property
    def label(self) -> str:
        """Name in tables."""
        return str(self.options.get("label") or self.short)

    def option(self, key: str) -> str | None:
        """Return OPTION of a sweep's key ``METHOD.OPTION`` if METHOD is this row, else None."""
        for name in (self.label, self.name, self.short):
            if key.startswith(f"{name}."):
                return key[len(name) + 1 :]
        name, _, option = key.partition(".")
        same = "+".join(sorted(name.split("+"))) == self.sorted_name
        return option if same and option else None

    def points(self, sweep: Mapping[str, Sequence[Any]]) -> list[tuple[str, Point]]:
        """Return a label and the swept options for each row that a sweep makes of this row.

        A row that is not swept gives its own label and no options.
        """
        options = self._swept(sweep)
        axes = [[(option, value) for value in sweep[key]] for key, option in options.items()]
        rows = []
        for point in itertools.product(*axes):
            swept = ", ".join(f"{key}={value}" for key, value in point)
            rows.append((f"{self.label}({swept})" if swept else self.label, point))
        return rows

    def number_of_points(self, sweep: Mapping[str, Sequence[Any]]) -> int:
        """Return how many rows ``points`` gives."""
        return math.prod(len(sweep[key]) for key in self._swept(sweep))

    def _swept(self, sweep: Mapping[str, Sequence[Any]]) -> dict[str, str]:
        """Return the keys of a sweep that concern this row, and the option of each."""
        return {key: option for key in sweep if (option := self.option(key)) is not None}


def named_rows(rows: Sequence[Row], name: str) -> list[Row]:
    """Return the row with this label, or else the rows of the method of this name."""
    labelled = [row for row in rows if row.label == name]
    return labelled or [row for row in rows if row.sorted_name == sorted_name(name)]


class Grid(Strict):
    """A resolved grid of experiments.

    Attributes:
        name: of the folder in ``results/``.
        title: of the leaderboard.
        sweep: ``METHOD.OPTION`` -> values; each value gives a row, which replaces the method's row.
        teachers: architecture -> id of an existing run that trained it, e.g. ``import-...``.
        source: the grid file, for messages.
    """

    name: Name
    title: Annotated[Line, Field(max_length=500)]
    dataset: Dataset
    protocol: Protocol
    seeds: tuple[Count, ...] = Field(min_length=1)
    pairs: tuple[Pair, ...] = Field(min_length=1)
    methods: tuple[Row, ...] = ()
    sweep: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    teacher: TeacherSpec = TeacherSpec()
    teachers: dict[str, RunId] = Field(default_factory=dict)
    executor: Executor = Executor()
    report: Report = Report()
    source: str = "grid"
