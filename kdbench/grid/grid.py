"""What a grid of experiments is, once it has been read and every name in it checked.

``gridfile.load`` reads one from YAML; ``expand`` turns it into runs. No torch here.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from kdbench.errors import UserError
from kdbench.grid.resources import Slurm
from kdbench.grid.run import pair_name
from kdbench.grid.settings import Count, Dataset, Positive, Protocol, Rate, Strict, Weight


class GridError(UserError):
    """All that is wrong with a grid, one line each."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = tuple(lines)


class Pair(Strict):
    """Teacher and student architecture; ``lr`` replaces the protocol's for this student."""

    teacher: str
    student: str
    lr: Rate | None = None

    def __str__(self) -> str:
        """Return ``TEACHER -> STUDENT``."""
        return pair_name(self.teacher, self.student)


class TeacherSpec(Strict):
    """How the teachers are trained where that differs from the students.

    Attributes:
        seed: of the teachers' own training; all students of a pair share one teacher.
        dataset: what they are trained on; None: the grid's.
        protocol: how; None: the grid's.
    """

    seed: Count = 0
    dataset: Dataset | None = None
    protocol: Protocol | None = None


class Executor(Strict):
    """Where and how runs are trained; nothing of it moves a number, but for rounding.

    Attributes:
        kind: debug: in this process; local: workers on this machine; slurm: jobs on a cluster;
            auto: local.
        workers: processes at once; None: one a GPU, else as many as ``kdbench doctor --tune`` found
            best here with so many threads, else one a core.
        threads: of a worker on a CPU. Sums are split among threads: another number of threads
            may round differently, so it is kept in every record.
        ranks: processes, one a GPU, that train a cohort together, each its share of the batch. The
            batch and the method's view of it stay as they are; sums may round differently, so it
            is kept in every record, too.
        cohort: most learners that share a teacher's forward.
        checkpoint_seconds: time between checkpoints, the most a kill can cost.
        device: auto, cpu, cuda or cuda:N.
        tensorboard: leave curves for TensorBoard in the runs' folders.
        slurm: what jobs on a cluster need.
    """

    kind: Literal["auto", "local", "debug", "slurm"] = "auto"
    workers: Positive | None = None
    threads: Positive = 1
    ranks: Positive = 1
    cohort: Positive = 16
    checkpoint_seconds: Weight = 60.0
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    tensorboard: bool = False
    slurm: Slurm = Slurm()


class Report(Strict):
    """What a leaderboard compares with.

    Attributes:
        reference: "PAPER/TABLE" of the published figures to show beside ours.
        ari_of: the method whose average relative improvement over the others is shown.
        baseline: the method that differences are taken to.
        tie: points that a mean difference may have and still count as a tie between methods.
        supports, against: what the results support and what they do not, said at the top.
    """

    reference: str | None = None
    ari_of: str | None = None
    baseline: str = "kd"
    tie: Weight = 0.2
    supports: str = ""
    against: str = ""


def short(method: str) -> str:
    """A method's name without folders: a plugin's is its file's without ``.py``."""
    return re.split(r"[/\\]", method)[-1].removesuffix(".py")


def sorted_name(name: str) -> str:
    """Return the short name of a combination with its methods sorted: ``at+sp`` for ``sp+at``."""
    return "+".join(sorted(map(short, name.split("+"))))


Point = tuple[tuple[str, Any], ...]
"""The (option, value) of a row of a sweep; empty for a row that is not swept."""


class Row(Strict):
    """One entry of ``methods``.

    Attributes:
        name: methods joined by ``+``; a plugin is its absolute path.
        options: ``MethodOptions`` and hyper-parameters; in a combination a method's own stand under
            its name, a plugin's being its file's without ``.py``.
    """

    name: str
    options: dict[str, Any] = Field(default_factory=dict)

    @property
    def parts(self) -> tuple[str, ...]:
        """The methods."""
        return tuple(self.name.split("+"))

    @property
    def short(self) -> str:
        """The name without folders, e.g. ``semckd+mine``."""
        return "+".join(map(short, self.parts))

    @property
    def sorted_name(self) -> str:
        """``short`` with sorted methods, the same for a combination in any order."""
        return sorted_name(self.name)

    @property
    def label(self) -> str:
        """What tables call it."""
        return str(self.options.get("label") or self.short)

    def option(self, key: str) -> str | None:
        """The option that a sweep's ``METHOD.OPTION`` means, if METHOD is this row."""
        for name in (self.label, self.name, self.short):
            if key.startswith(f"{name}."):
                return key[len(name) + 1 :]
        name, _, option = key.partition(".")
        same = "+".join(sorted(name.split("+"))) == self.sorted_name
        return option if same and option else None

    def points(self, sweep: Mapping[str, Sequence[Any]]) -> list[tuple[str, Point]]:
        """What a sweep makes of this row: labels, and what each stands for.

        A row that the sweep does not mean is itself, with none.
        """
        options = {key: option for key in sweep if (option := self.option(key)) is not None}
        axes = [[(option, value) for value in sweep[key]] for key, option in options.items()]
        out = []
        for point in itertools.product(*axes):
            swept = ", ".join(f"{key}={value}" for key, value in point)
            out.append((f"{self.label}({swept})" if swept else self.label, point))
        return out


class Grid(Strict):
    """A grid of experiments, resolved.

    Attributes:
        name: of the folder in ``results/``. title: of the leaderboard.
        sweep: ``METHOD.OPTION`` -> values: a row for each, in place of the method's one.
        teachers: architecture -> id of the run that has trained it, e.g. ``import-...``.
        source: the grid file, for messages.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    title: str
    dataset: Dataset
    protocol: Protocol
    seeds: tuple[Count, ...] = Field(min_length=1)
    pairs: tuple[Pair, ...] = Field(min_length=1)
    methods: tuple[Row, ...] = ()
    sweep: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    teacher: TeacherSpec = TeacherSpec()
    teachers: dict[str, str] = Field(default_factory=dict)
    executor: Executor = Executor()
    report: Report = Report()
    source: str = "grid"
