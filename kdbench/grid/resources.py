"""Resources and limits of jobs on a Slurm cluster: the pydantic models of ``executor.slurm``."""

import fnmatch
from typing import Annotated, Any

from pydantic import Field, model_validator

from kdbench.grid.run import Run
from kdbench.grid.value_types import Count, Form, Positive, Rate, Strict

Memory = Annotated[str, Form(r"[0-9]{1,9}(\.[0-9]{1,9})? ?(MB|GB|TB)", "a size such as 24 GB")]
UNITS = {"MB": 1, "GB": 1024, "TB": 1024**2}
RESERVED = ("array", "chdir", "dependency", "error", "job-name", "output", "requeue", "signal")
"""Options of sbatch that kdbench sets itself."""


class Resources(Strict):
    """Resources of one job; a field that is None is left to the cluster's default.

    Attributes:
        partition: as for ``sbatch``.
        account: as for ``sbatch``.
        qos: as for ``sbatch``.
        constraint: as for ``sbatch``.
        gpus: of a job; None: one per rank if the partition has GPUs, else none.
        cpus: cores of a job's task; None: the executor's ``threads``, at least 4 with a GPU.
        memory: of a node, e.g. "24 GB".
        hours: time limit. A job that reaches it writes checkpoints and is requeued.
        jobs_per_gpu: cohorts that train at once in one job and share its GPU.
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
    """Resources of some runs, which replace the grid's.

    All three patterns must match a run.

    Attributes:
        method: pattern, e.g. ``semckd*``.
        teacher: pattern, e.g. ``vgg*``.
        student: pattern, likewise.
    """

    method: str = "*"
    teacher: str = "*"
    student: str = "*"

    def concerns(self, run: Run) -> bool:
        """Return whether a run matches; the teacher of a run without one is ""."""
        teacher = run.teacher.arch if run.teacher else ""
        patterns = ((self.method, run.method), (self.teacher, teacher), (self.student, run.student))
        return all(fnmatch.fnmatchcase(value, pattern) for pattern, value in patterns)


class Slurm(Resources):
    """Settings for submitting a grid.

    Attributes:
        nodes: number of nodes for the ranks of one run.
        parallel: maximum number of array elements that run at once.
        chunk: maximum size of an array; the limit of the cluster also applies.
        retries: how often a run is submitted again after failures without progress in between.
        signal_seconds: how long before the time limit a job is signalled to write checkpoints.
        poll_seconds: time between two queries to Slurm while a command waits.
        sbatch: further options, ``{exclude: n7, comment: mine}``; true for an option without value.
        srun: further arguments of srun.
        setup: shell lines to run before srun (modules, environments).
        overrides: resources of some methods or pairs; the last match wins.
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
    def _check_sbatch(self) -> "Slurm":
        taken = [key for key in self.sbatch if key.lstrip("-").replace("_", "-") in RESERVED]
        if taken:
            raise ValueError(f"sbatch: {', '.join(taken)}: set by kdbench itself")
        return self

    def of(self, run: Run) -> Resources:
        """Return the resources of a run, with overrides applied."""
        values: dict[str, Any] = {name: getattr(self, name) for name in Resources.model_fields}
        for override in self.overrides:
            if override.concerns(run):
                given = override.model_dump(exclude_none=True)
                values |= {key: value for key, value in given.items() if key in values}
        return Resources(**values)
