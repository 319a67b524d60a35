"""Submitting: cohorts to arrays of jobs, through submitit, each array once."""

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

REFUSED = re.compile(
    r"invalid|not available|not found|specification|unrecognized|unknown|not permitted|denied"
    r"|more processors requested|memory specification|too (?:large|long|many)|illegal",
    re.IGNORECASE,
)
"""What sbatch says when asking again would be no use."""
LIMITED = re.compile(r"job submit limit|max\w*submit|maxjobs|temporarily|try again", re.IGNORECASE)
"""What it says when there are too many jobs already."""


class NotNow(Exception):
    """sbatch did not answer, or there are too many jobs; nothing was submitted, for all we know."""


@dataclass(frozen=True)
class Array:
    """Cohorts that need the same and wait for the same.

    Attributes:
        elements: each trains side by side what its tasks are given.
        after: ids of the jobs that must have ended well before.
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
        cohorts: what trains together. needs_of: what a run needs; the same for all of a cohort.
        after: run id of a teacher -> id of the job that trains it.
        chunk: most elements of an array.
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
        # An element of fewer cohorts than tasks would leave a task without work.
        whole = [element for element in elements if len(element) == side]
        rest = [element for element in elements if len(element) != side]
        for group in (whole, rest):
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
) -> Submission:
    """Submit an array, once.

    Raises:
        JobError: Slurm refuses it, and why; one line.
        NotNow: Slurm does not answer, or takes no more jobs; to be tried again later.
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
    )
    submissions.write(submission, todo)
    parameters = _parameters(array, submission, executor)
    try:
        submission.submitted(_sbatch(submission, parameters, scheduler))
    except SchedulerError as error:
        _refusal(str(error), submission)
        raise NotNow(str(error)) from None
    return submission


def _sbatch(submission: Submission, parameters: dict[str, Any], scheduler: Scheduler) -> str:
    """Have submitit call sbatch; Slurm's id of the job."""
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
            raise SchedulerError(_said(error)) from None
    return str(jobs[0].job_id).partition("_")[0]


def _parameters(array: Array, submission: Submission, executor: Executor) -> dict[str, Any]:
    """What submitit is told."""
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
            # The snapshot, and nothing of the folder that the job was submitted from.
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
    # One rank's death ends the others, which would wait for it.
    alone = ["--kill-on-bad-exit=1"] if executor.ranks > 1 else ["--kill-on-bad-exit=0"]
    values["srun_args"] = [*alone, *slurm.srun]
    return {key: value for key, value in values.items() if value is not None}


@contextlib.contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """Without what a surrounding Slurm job would hand on to the ones submitted from within it."""
    hidden = {
        name: os.environ.pop(name)
        for name in list(os.environ)
        if name.startswith("SLURM_") and name != "SLURM_CONF"
    }
    try:
        yield
    finally:
        os.environ.update(hidden)


def _said(error: BaseException) -> str:
    """Slurm's own words in submitit's message, on one line."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line.startswith(("sbatch:", "slurm"))]
    return " ".join(" ".join(told or lines).split())


def _refusal(told: str, submission: Submission) -> None:
    """Raise ``JobError`` where sbatch will never take this."""
    if REFUSED.search(told) and not LIMITED.search(told):
        submission.close()
        raise JobError(f"executor.slurm: {told}")


# --- before anything is submitted ---


def check(slurm: Slurm, ranks: int, needs: Resources, partitions: Sequence[Partition]) -> Resources:
    """Resources with the number of GPUs chosen, if some node can have them at all.

    Raises:
        JobError: no node of the partition has that much; says what it has.
    """
    names = [one.name for one in partitions]
    if needs.partition is None:
        fits = [one for one in partitions if one.default] or list(partitions)
    else:
        asked = needs.partition.split(",")
        wrong = [name for name in asked if name not in names]
        if wrong and names:
            raise JobError(
                f"executor.slurm.partition: {wrong[0]}: no such partition; there are "
                f"{', '.join(names)}{did_you_mean(wrong[0], names)}"
            )
        fits = [one for one in partitions if one.name in asked]
    if not fits:
        return needs.model_copy(update={"gpus": needs.gpus or 0})
    most = {key: max(getattr(one, key) for one in fits) for key in ("gpus", "cpus", "memory")}
    if ranks > 1 and (needs.jobs_per_gpu or 1) > 1:
        raise JobError("executor.slurm.jobs_per_gpu: a run of several ranks has its GPUs alone")
    if ranks % slurm.nodes and ranks > 1:
        raise JobError(f"executor.ranks: {ranks}: cannot be spread over {slurm.nodes} nodes evenly")
    tasks = ranks // slurm.nodes if ranks > 1 else needs.jobs_per_gpu or 1
    gpus = needs.gpus
    if gpus is None:
        gpus = min(most["gpus"], tasks if ranks > 1 else 1)
    wanted = {"gpus": gpus, "cpus": (needs.cpus or 1) * tasks, "memory": needs.megabytes or 0}
    for key, value in wanted.items():
        if value > most[key]:
            unit = " MB" if key == "memory" else ""
            raise JobError(
                f"executor.slurm.{key}: {value:g}{unit} for one node; the largest node of "
                f"{', '.join(one.name for one in fits)} has {most[key]:g}{unit}"
            )
    return needs.model_copy(update={"gpus": gpus})
