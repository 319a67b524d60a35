"""The lines of ``kdbench doctor`` about a Slurm cluster and how the runner uses it."""

import re
from collections.abc import Iterator

from kdbench.execution.slurm.scheduler import Scheduler, SchedulerError, has_slurm


def lines(scheduler: Scheduler | None = None) -> Iterator[tuple[str, str]]:
    """Yield a title and a text for each property of the cluster."""
    if scheduler is None and not has_slurm():
        yield "Slurm", "not found: grids are trained on this machine"
        return
    scheduler = scheduler or Scheduler()
    try:
        yield "Slurm", scheduler.ask("sinfo", "--version").strip()
        config = scheduler.config()
        partitions = scheduler.partitions()
    except SchedulerError as error:
        yield "Slurm", f"found, but does not answer: {error}"
        return
    for partition in partitions:
        gpus = f"{partition.gpus} GPUs" if partition.gpus else "no GPUs: jobs train on CPUs"
        default = ", the default" if partition.default else ""
        yield (
            f"partition {partition.name}",
            f"{partition.cpus} cores, {partition.memory / 1024:.0f} GB, {gpus} per node{default}",
        )
    yield "arrays", f"MaxArraySize {config.get('MaxArraySize', '?')}: larger arrays are split"
    yield "accounting", _accounting(scheduler)
    yield "preemption", _preemption(config)
    yield "requeue", _requeue(config)
    yield "lost nodes", _lost(config)


def _accounting(scheduler: Scheduler) -> str:
    try:
        scheduler.accounting(["1"])
    except SchedulerError as error:
        return (
            f"none ({error}): it is unknown how jobs ended; a job without a record is submitted "
            "again one minute after squeue stops listing it"
        )
    return "sacct answers: the records of lost runs include how their jobs ended"


def _preemption(config: dict[str, str]) -> str:
    mode = config.get("PreemptMode", "OFF").upper()
    if mode in ("OFF", ""):
        return "off"
    warned = "preempt_send_user_signal" in config.get("SlurmctldParameters", "")
    checkpoints = (
        "jobs get a signal first (preempt_send_user_signal) and write checkpoints"
        if warned
        else "jobs get TERM and write checkpoints if there is grace time, or else lose at most "
        "executor.checkpoint_seconds"
    )
    after = "are requeued by Slurm" if "REQUEUE" in mode else "are submitted again by the runner"
    return f"{mode}: {checkpoints}, and {after}"


def _requeue(config: dict[str, str]) -> str:
    if config.get("JobRequeue", "1") == "0":
        return "JobRequeue=0: jobs request it themselves (--requeue)"
    return "on: a job at its time limit writes checkpoints and is requeued"


def _lost(config: dict[str, str]) -> str:
    seconds = re.match(r"\d+", config.get("SlurmdTimeout", "300"))
    return (
        f"Slurm notices them after {seconds.group() if seconds else '?'} s (SlurmdTimeout) and "
        "requeues their jobs; the runner waits for that"
    )
