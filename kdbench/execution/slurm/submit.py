"""Submission of cohorts as arrays of jobs, through submitit, each array once."""

import contextlib
import math
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdbench.errors import did_you_mean
from kdbench.execution.slurm import submissions
from kdbench.execution.slurm.scheduler import Partition, Scheduler, SchedulerError
from kdbench.execution.slurm.submissions import Element, Submission
from kdbench.execution.work import JobError
from kdbench.grid.grid import Executor
from kdbench.grid.resources import Resources, Slurm
from kdbench.grid.run import Run
from kdbench.grid.settings import Dataset
from kdbench.runs.data_digests import MadeOf

REFUSED = re.compile(
    r"invalid|not available|not found|specification|unrecognized|unknown|not permitted|denied"
    r"|more processors requested|memory specification|too (?:large|long|many)|illegal",
    re.IGNORECASE,
)
"""Messages of sbatch after which another attempt would be useless."""
LIMITED = re.compile(r"job submit limit|max\w*submit|maxjobs|temporarily|try again", re.IGNORECASE)
"""Messages of sbatch when there are too many jobs."""


class NotNow(Exception):
    """sbatch did not answer, or there are too many jobs; probably nothing was submitted.

    Args:
        reason: one line.
        silent: Slurm did not answer.
    """

    def __init__(self, reason: str, *, silent: bool) -> None:
        super().__init__(reason)
        self.silent = silent


@dataclass(frozen=True)
class Array:
    """Cohorts with the same resources and the same dependencies.

    Attributes:
        elements: for each array element, the cohorts that its tasks train side by side.
        resources: of an element.
        after: ids of the jobs that must succeed before this array starts.
    """

    elements: tuple[tuple[tuple[Run, ...], ...], ...]
    resources: Resources
    after: tuple[str, ...] = ()


def arrays(
    cohorts: Sequence[tuple[Run, ...]],
    needs_of: Callable[[Run], Resources],
    after: Mapping[str, str],
    *,
    chunk: int,
) -> list[Array]:
    """Group cohorts into arrays.

    Args:
        cohorts: groups of runs that train together.
        needs_of: returns a run's resources, which are the same for all runs of a cohort.
        after: by a teacher's run id, the id of the job that trains the teacher.
        chunk: largest number of elements of an array.
    """
    groups: dict[tuple[Resources, str], list[tuple[Run, ...]]] = defaultdict(list)
    for cohort in cohorts:
        teacher = cohort[0].teacher
        waits_for = after.get(teacher.run, "") if teacher else ""
        groups[needs_of(cohort[0]), waits_for].append(cohort)
    out = []
    for (needs, waits_for), members in groups.items():
        side = needs.jobs_per_gpu or 1
        elements = [tuple(members[i : i + side]) for i in range(0, len(members), side)]
        # An element with fewer cohorts than tasks would leave a task without work.
        full = [element for element in elements if len(element) == side]
        rest = [element for element in elements if len(element) != side]
        for group in (full, rest):
            for start in range(0, len(group), chunk):
                piece = tuple(group[start : start + chunk])
                out.append(Array(piece, needs, (waits_for,) if waits_for else ()))
    return out


def submit(
    array: Array,
    scheduler: Scheduler,
    *,
    grid: str,
    runs: Path,
    data: Path,
    code: Path,
    executor: Executor,
    attempts: Mapping[str, int],
    made_of: Mapping[Dataset, MadeOf],
) -> Submission:
    """Submit an array, once.

    Raises:
        JobError: Slurm refuses the array; one line with the reason.
        NotNow: Slurm does not answer, or accepts no more jobs; try again later.
        OSError: ``runs`` cannot be written.
    """
    todo = {run.id: run for element in array.elements for cohort in element for run in cohort}
    elements: tuple[Element, ...] = tuple(
        tuple(tuple(run.id for run in cohort) for cohort in element) for element in array.elements
    )
    submission = Submission(
        name=submissions.name_of(grid),
        grid=grid,
        runs=str(runs.resolve()),
        data=str(data.resolve()),
        code=str(code),
        executor=executor.model_dump(mode="json"),
        elements=elements,
        attempts={run_id: attempts[run_id] for run_id in todo if attempts.get(run_id)},
        ranks=executor.ranks,
        made_of=submissions.as_json(made_of),
    )
    submissions.write(submission, todo)
    parameters = _parameters(array, submission, executor)
    try:
        submission.submitted(_sbatch(submission, parameters, scheduler))
    except SchedulerError as error:
        _raise_if_refused(str(error), submission)
        raise NotNow(str(error), silent=not LIMITED.search(str(error))) from None
    return submission


def _sbatch(submission: Submission, parameters: dict[str, Any], scheduler: Scheduler) -> str:
    """Let submitit call sbatch, and return Slurm's id of the job."""
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    from kdbench.execution.slurm.array_element import Element as Function

    scheduler.pause()
    scheduler.calls["sbatch"] += 1
    with _outside_of_jobs():
        try:
            maker = submitit.SlurmExecutor(folder=submission.folder / "log", max_num_timeout=10**6)
            maker.update_parameters(**parameters)
            functions = [
                Function(str(submission.folder), i) for i in range(len(submission.elements))
            ]
            jobs = maker.submit_array(functions)
        except (FailedJobError, FailedSubmissionError, OSError, RuntimeError) as error:
            raise SchedulerError(_slurm_message(error)) from None
    return str(jobs[0].job_id).partition("_")[0]


def _parameters(array: Array, submission: Submission, executor: Executor) -> dict[str, Any]:
    """Return the parameters for submitit."""
    needs, slurm = array.resources, executor.slurm
    tasks = executor.ranks // slurm.nodes if executor.ranks > 1 else len(array.elements[0])
    gpus = needs.gpus or 0
    path = f"{submission.code}{os.pathsep}${{PYTHONPATH:-}}"
    values: dict[str, Any] = {
        "job_name": submission.name,
        "nodes": slurm.nodes,
        "ntasks_per_node": tasks,
        "cpus_per_task": needs.cpus or max(executor.threads, 4 if gpus else 1),
        "gpus_per_node": gpus or None,
        "mem": f"{math.ceil(needs.megabytes)}MB" if needs.megabytes else None,
        "time": max(1, round(60 * needs.hours)) if needs.hours else None,
        "signal_delay_s": slurm.signal_seconds,
        "array_parallelism": slurm.parallel,
        "wckey": None,
        "setup": [
            *slurm.setup,
            # The snapshot first, and nothing from the folder that the job was submitted from.
            f'export PYTHONPATH="{path}" PYTHONSAFEPATH=1',
            f"export OMP_NUM_THREADS={executor.threads} MKL_NUM_THREADS={executor.threads}",
        ],
    }
    values |= {name: getattr(needs, name) for name in ("partition", "account", "qos", "constraint")}
    more = {key.lstrip("-").replace("_", "-"): value for key, value in slurm.sbatch.items()}
    more |= {"requeue": True}
    if array.after:
        more |= {"dependency": f"afterok:{':'.join(array.after)}", "kill-on-invalid-dep": "yes"}
    values["additional_parameters"] = more
    # If one rank dies, Slurm kills the others, which would wait for it.
    kill = f"--kill-on-bad-exit={int(executor.ranks > 1)}"
    values["srun_args"] = [kill, *slurm.srun]
    return {key: value for key, value in values.items() if value is not None}


@contextlib.contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """Hide the variables that jobs would inherit if this process runs inside a Slurm job."""
    hidden = {
        name: os.environ.pop(name)
        for name in list(os.environ)
        if name.startswith("SLURM_") and name != "SLURM_CONF"
    }
    try:
        yield
    finally:
        os.environ.update(hidden)


def _slurm_message(error: BaseException) -> str:
    """Extract Slurm's message from submitit's, as one line."""
    lines = [line.strip() for line in str(error).splitlines()]
    from_slurm = [line for line in lines if line.startswith(("sbatch:", "slurm"))]
    return " ".join(" ".join(from_slurm or lines).split())


def _raise_if_refused(message: str, submission: Submission) -> None:
    """Raise ``JobError`` if sbatch will never accept this submission."""
    if REFUSED.search(message) and not LIMITED.search(message):
        submission.close()
        raise JobError(f"executor.slurm: {message}")


def check(slurm: Slurm, ranks: int, needs: Resources, partitions: Sequence[Partition]) -> Resources:
    """Choose the number of GPUs, and check that some node has the resources.

    Raises:
        JobError: no node of the partition is large enough, or the ranks do not fit the nodes.
    """
    names = [partition.name for partition in partitions]
    if needs.partition is None:
        usable = [partition for partition in partitions if partition.default] or list(partitions)
    else:
        requested = needs.partition.split(",")
        unknown = [name for name in requested if name not in names]
        if unknown and names:
            raise JobError(
                f"executor.slurm.partition: {unknown[0]}: no such partition; expected one of "
                f"{', '.join(names)}{did_you_mean(unknown[0], names)}"
            )
        usable = [partition for partition in partitions if partition.name in requested]
    if not usable:
        return needs.model_copy(update={"gpus": needs.gpus or 0})
    most = {
        key: max(getattr(partition, key) for partition in usable)
        for key in ("gpus", "cpus", "memory")
    }
    if ranks > 1 and (needs.jobs_per_gpu or 1) > 1:
        raise JobError(
            "executor.slurm.jobs_per_gpu: runs with several ranks cannot share GPUs; expected 1"
        )
    if ranks % slurm.nodes and ranks > 1:
        raise JobError(f"executor.ranks: {ranks}: cannot be spread evenly over {slurm.nodes} nodes")
    tasks = ranks // slurm.nodes if ranks > 1 else needs.jobs_per_gpu or 1
    gpus = needs.gpus
    if gpus is None:
        gpus = min(most["gpus"], tasks if ranks > 1 else 1)
    total = {"gpus": gpus, "cpus": (needs.cpus or 1) * tasks, "memory": needs.megabytes or 0}
    for key, value in total.items():
        if value > most[key]:
            unit = " MB" if key == "memory" else ""
            raise JobError(
                f"executor.slurm.{key}: {value:g}{unit} for one node; the largest node of "
                f"{', '.join(partition.name for partition in usable)} has {most[key]:g}{unit}"
            )
    return needs.model_copy(update={"gpus": gpus})
