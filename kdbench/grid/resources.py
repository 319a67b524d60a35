"""What a grid asks of a Slurm cluster: the pydantic models of ``executor.slurm``."""

import fnmatch
from typing import Annotated, Any

from pydantic import Field, model_validator

from kdbench.grid.run import Run
from kdbench.grid.settings import Count, Positive, Rate, Strict

Memory = Annotated[str, Field(pattern=r"^\d+(\.\d+)? ?(MB|GB|TB)$")]
UNITS = {"MB": 1, "GB": 1024, "TB": 1024**2}
OURS = ("array", "chdir", "dependency", "error", "job-name", "output", "requeue", "signal")
"""Options of sbatch that kdbench sets itself."""


class Resources(Strict):
    """What one job needs; a field that is None is left to the cluster's default.

    Attributes:
        partition, account, qos, constraint: as for ``sbatch``.
        gpus: of a job; None: one a rank where the partition has any, else none.
        cpus: cores of a job's task; None: the executor's ``threads``, at least 4 with a GPU.
        memory: of a node, e.g. "24 GB".
        hours: time limit. A job that reaches it leaves checkpoints and is requeued.
        jobs_per_gpu: cohorts that train side by side in one job and share its GPU.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpus: Count | None = None
    cpus: Positive | None = None
    memory: Memory | None = None
    hours: Rate | None = None
    jobs_per_gpu: Positive | None = None

    @property
    def megabytes(self) -> float | None:
        """``memory`` in MB."""
        if self.memory is None:
            return None
        return float(self.memory[:-2]) * UNITS[self.memory[-2:]]


class Override(Resources):
    """Resources for some runs; what is given here replaces the grid's.

    Attributes:
        method, teacher, student: which runs, as patterns (``semckd*``, ``vgg*``); all must match.
    """

    method: str = "*"
    teacher: str = "*"
    student: str = "*"

    def concerns(self, run: Run) -> bool:
        """Whether a run matches; a run without a teacher has the teacher ""."""
        teacher = run.teacher.arch if run.teacher else ""
        asked = ((self.method, run.method), (self.teacher, teacher), (self.student, run.student))
        return all(fnmatch.fnmatchcase(value, pattern) for pattern, value in asked)


class Slurm(Resources):
    """How a grid is submitted.

    Attributes:
        nodes: that one run's ranks are spread over.
        parallel: most elements of an array that run at once.
        chunk: most elements of an array; never above what the cluster allows.
        retries: how often a run is submitted again after losses without any progress in between.
        signal_seconds: how long before the time limit a job is told to leave its checkpoints.
        poll_seconds: between two questions to Slurm, while somebody watches.
        sbatch: further options, ``{exclude: n7, comment: mine}``; true for one without a value.
        srun: further arguments of srun. setup: lines of shell before it (modules, environments).
        overrides: resources of some methods or pairs; the last one that matches wins.
    """

    hours: Rate = 24.0
    nodes: Positive = 1
    parallel: Positive = 64
    chunk: Positive = 500
    retries: Count = 3
    signal_seconds: Positive = 120
    poll_seconds: Rate = 15.0
    sbatch: dict[str, str | int | float | bool] = Field(default_factory=dict)
    srun: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    overrides: tuple[Override, ...] = ()

    @model_validator(mode="after")
    def _not_ours(self) -> "Slurm":
        taken = [key for key in self.sbatch if key.lstrip("-").replace("_", "-") in OURS]
        if taken:
            raise ValueError(f"sbatch: {', '.join(taken)}: set by kdbench itself")
        return self

    def of(self, run: Run) -> Resources:
        """What a run needs, overrides applied."""
        values: dict[str, Any] = {name: getattr(self, name) for name in Resources.model_fields}
        for override in self.overrides:
            if override.concerns(run):
                given = override.model_dump(exclude_none=True)
                values |= {key: value for key, value in given.items() if key in values}
        return Resources(**values)
