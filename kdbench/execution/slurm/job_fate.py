"""The fate of a job, judged from Slurm's answers over time; calls no commands.

Sources in order of trust: a run's record on disk (not read here), squeue, sacct. A job is gone only
if squeue, queried twice and some seconds apart, does not list it, because a requeued job leaves a
state that looks final. If Slurm does not answer, nothing is concluded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from kdbench.execution.slurm.scheduler import TERMINAL, Ended, Queued

CONFIRM_SECONDS = 10.0
"""A job that squeue does not list for this long is gone if sacct agrees."""
VANISH_SECONDS = 60.0
"""A job that squeue does not list for this long is gone, whatever sacct reports."""
IMPOSSIBLE = {
    "PartitionConfig": "it requests more nodes or CPUs than the partition has",
    "PartitionNodeLimit": "it requests more nodes than the partition allows",
    "PartitionTimeLimit": "it requests more hours than the partition allows",
    "BadConstraints": "no node satisfies its constraint",
    "InvalidAccount": "the account is not valid",
    "InvalidQOS": "the QOS is not valid",
    "AccountNotAllowed": "the account may not use the partition",
    "QOSNotAllowed": "the QOS may not use the partition",
    "AssocMaxWallDurationPerJobLimit": "it requests more hours than the account allows",
    "QOSMaxWallDurationPerJobLimit": "it requests more hours than the QOS allows",
    "QOSMaxCpuPerJobLimit": "it requests more CPUs than the QOS allows",
    "QOSMaxGRESPerJob": "it requests more GPUs than the QOS allows",
}
"""Reasons why a pending job will never start, and their explanations."""

HELD = "launch failed requeued held"
"""Reason of a job that no node could start; Slurm holds it indefinitely."""

Fate = Literal["active", "unknown", "gone", "vanished", "impossible", "orphaned", "held"]


@dataclass
class Watch:
    """The observations of a job or an array element; times are in seconds.

    Attributes:
        absent_since: when squeue first did not list the job; None while it is listed.
        absences: how many answers of squeue in a row did not list the job.
        stuck_since: since when the job has waited for a reason in ``IMPOSSIBLE``.
        idle_since: since when the job has been listed although all its runs have records.
    """

    absent_since: float | None = None
    absences: int = 0
    stuck_since: float | None = None
    idle_since: float | None = None


@dataclass(frozen=True)
class Verdict:
    """The fate of a job, and the reason.

    Fates: ``gone``: it has ended, and sacct reports how. ``vanished``: it is unknown how, or even
    whether, it ended. ``orphaned``: it depends on a failed job, and will never start. ``held``:
    Slurm holds it, and it will never start; a job that an operator holds is ``active``.

    Attributes:
        why: the reason.
        signal: the signal that killed a job that is gone, or ``crashes.DEVICE_LOST``; 0: neither.
    """

    fate: Fate
    why: str = ""
    signal: int = 0


def judge(
    watch: Watch,
    listed: Queued | None,
    ended: Ended | None,
    now: float,
    *,
    confirm: float = CONFIRM_SECONDS,
    vanish: float = VANISH_SECONDS,
) -> Verdict:
    """Judge a job after an answer of squeue, and update ``watch``.

    Args:
        watch: of this job, kept between calls.
        listed: the job in squeue; None if squeue does not list it.
        ended: the job in sacct; None if sacct has no entry or was not queried.
        now: seconds of a monotonic clock.
        confirm: seconds after which an absence counts if sacct agrees.
        vanish: seconds after which an absence counts, whatever sacct reports.
    """
    if listed is not None and listed.state not in TERMINAL:
        watch.absent_since, watch.absences = None, 0
        return _waiting(watch, listed, now, confirm)
    watch.stuck_since = None
    watch.absences += 1
    if watch.absent_since is None:
        watch.absent_since = now
    absent = now - watch.absent_since
    if watch.absences < 2 or absent < confirm:
        return Verdict("unknown")
    if ended is not None and ended.state in TERMINAL:
        return Verdict("gone", str(ended), ended.signal)
    if absent < vanish:
        return Verdict("unknown")
    state = f"sacct still reports {ended.state}" if ended else "sacct has no entry"
    return Verdict("vanished", f"vanished: squeue has not listed it for {absent:.0f} s, {state}")


def _waiting(watch: Watch, listed: Queued, now: float, confirm: float) -> Verdict:
    if listed.state != "PENDING":
        watch.stuck_since = None
        return Verdict("active", listed.state)
    if listed.reason == "DependencyNeverSatisfied":
        return Verdict("orphaned", listed.reason)
    if listed.reason.replace("_", " ").lower() == HELD:
        return Verdict("held", f"held by Slurm: {listed.reason}")
    if listed.reason not in IMPOSSIBLE:
        watch.stuck_since = None
        return Verdict("active", listed.reason)
    # A reason may appear briefly while a node comes back.
    watch.stuck_since = now if watch.stuck_since is None else watch.stuck_since
    if now - watch.stuck_since < confirm:
        return Verdict("active", listed.reason)
    return Verdict("impossible", f"{listed.reason}: {IMPOSSIBLE[listed.reason]}")


def needs_accounting(
    watches: Mapping[str, Watch], queue: Mapping[str, Queued], now: float, confirm: float
) -> list[str]:
    """Return the jobs to look up in sacct: those about to be declared gone."""
    return [
        job
        for job, watch in watches.items()
        if (job not in queue or queue[job].state in TERMINAL)
        and watch.absences >= 1
        and watch.absent_since is not None
        and now - watch.absent_since >= confirm
    ]
