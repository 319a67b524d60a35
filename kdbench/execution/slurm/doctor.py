"""What ``kdbench doctor`` says of a cluster, and what the runner does about each."""

import re
from collections.abc import Iterator

from kdbench.execution.slurm.scheduler import Scheduler, SchedulerError, has_slurm


def lines(scheduler: Scheduler | None = None) -> Iterator[tuple[str, str]]:
    """What there is, and what follows from it: (what, found)."""
    if scheduler is None and not has_slurm():
        yield "Slurm", "not found: grids run on this machine"
        return
    ask = scheduler or Scheduler()
    try:
        yield "Slurm", ask.ask("sinfo", "--version").strip()
        config = ask.config()
        partitions = ask.partitions()
    except SchedulerError as error:
        yield "Slurm", f"there, and does not answer: {error}"
        return
    for one in partitions:
        gpus = f"{one.gpus} GPUs" if one.gpus else "no GPUs: jobs there train on CPUs"
        default = ", the default" if one.default else ""
        yield (
            f"partition {one.name}",
            f"{one.cpus} cores, {one.memory / 1024:.0f} GB, {gpus} a node{default}",
        )
    yield "arrays", f"MaxArraySize {config.get('MaxArraySize', '?')}: larger ones go in chunks"
    yield "accounting", _accounting(ask)
    yield "preemption", _preemption(config)
    yield "requeue", _requeue(config)
    yield "lost nodes", _lost(config)


def _accounting(ask: Scheduler) -> str:
    try:
        ask.accounting(["1"])
    except SchedulerError as error:
        return (
            f"none ({error}): how a job ended is not known; one that squeue no longer lists and "
            "that left no record is submitted again after a minute"
        )
    return "sacct answers: how a lost job ended stands in the record of its runs"


def _preemption(config: dict[str, str]) -> str:
    mode = config.get("PreemptMode", "OFF").upper()
    if mode in ("OFF", ""):
        return "off"
    warned = "preempt_send_user_signal" in config.get("SlurmctldParameters", "")
    told = (
        "jobs are told first (preempt_send_user_signal) and leave checkpoints"
        if warned
        else "jobs get TERM, leave checkpoints if there is grace time, or lose what came since "
        "executor.checkpoint_seconds"
    )
    after = "are requeued by Slurm" if "REQUEUE" in mode else "are submitted again by the runner"
    return f"{mode}: {told}, and {after}"


def _requeue(config: dict[str, str]) -> str:
    if config.get("JobRequeue", "1") == "0":
        return "JobRequeue=0: jobs ask for it themselves (--requeue)"
    return "on: a job at its time limit leaves checkpoints and starts again"


def _lost(config: dict[str, str]) -> str:
    seconds = re.match(r"\d+", config.get("SlurmdTimeout", "300"))
    return (
        f"Slurm notices after {seconds.group() if seconds else '?'} s (SlurmdTimeout) and requeues "
        "their jobs; the runner waits for that"
    )
