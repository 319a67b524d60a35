"""What has become of a job, from what Slurm says and since when: pure logic, no calls.

Slurm is believed in this order: a run's record on disk (not asked here), squeue, sacct. A job has
gone only when squeue, asked twice and some seconds apart, does not list it: states that look final
are left again when a job is requeued. That Slurm does not answer says nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from kdbench.execution.slurm.scheduler import TERMINAL, Ended, Queued

CONFIRM_SECONDS = 10.0
"""A job that squeue does not list for so long has gone, if sacct says so, too."""
VANISH_SECONDS = 60.0
"""One that squeue does not list for so long has gone, whatever sacct says or does not say."""
IMPOSSIBLE = {
    "PartitionConfig": "it asks for more nodes or CPUs than the partition has",
    "PartitionNodeLimit": "it asks for more nodes than the partition allows",
    "PartitionTimeLimit": "it asks for more hours than the partition allows",
    "BadConstraints": "no node has what its constraint asks for",
    "InvalidAccount": "the account is not valid",
    "InvalidQOS": "the QOS is not valid",
    "AccountNotAllowed": "the account may not use the partition",
    "QOSNotAllowed": "the QOS may not use the partition",
    "AssocMaxWallDurationPerJobLimit": "it asks for more hours than the account may",
    "QOSMaxWallDurationPerJobLimit": "it asks for more hours than the QOS allows",
    "QOSMaxCpuPerJobLimit": "it asks for more CPUs than the QOS allows",
    "QOSMaxGRESPerJob": "it asks for more GPUs than the QOS allows",
}
"""Reasons to wait that no waiting ends."""

HELD = "launch failed requeued held"
"""Reason to wait of a job that no node could start: Slurm put it on hold, and leaves it there."""

Fate = Literal["active", "unknown", "gone", "vanished", "impossible", "orphaned", "held"]


@dataclass
class Watch:
    """What was seen of one job or element so far.

    Attributes:
        absent_since: when squeue first did not list it, in seconds; None while it is listed.
        absences: how often in a row it did not.
        stuck_since: since when it has waited for a reason that never ends.
        idle_since: since when it has been listed although all its runs have records.
    """

    absent_since: float | None = None
    absences: int = 0
    stuck_since: float | None = None
    idle_since: float | None = None


@dataclass(frozen=True)
class Verdict:
    """How a job stands, and what was seen.

    ``gone``: it has ended, and sacct says how. ``vanished``: nobody knows how, or whether.
    ``orphaned``: it waits for a job that did not end well, and will never start. ``held``: by Slurm
    itself, and it will not start either; what an operator holds is active. ``signal``: what a gone
    job died of, if a signal.
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
    """Judge one job after an answer of squeue, and note in ``watch`` what was seen.

    Args:
        watch: of this job, kept between calls.
        listed: what squeue says; None where it does not list the job.
        ended: what sacct says; None where it says nothing, or was not asked.
        now: seconds of a clock that only goes forward.
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
    said = f"sacct still says {ended.state}" if ended else "sacct says nothing of it"
    return Verdict("vanished", f"vanished: squeue has not listed it for {absent:.0f} s, {said}")


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
    # A reason may flicker while a node comes back; it has to stay.
    watch.stuck_since = now if watch.stuck_since is None else watch.stuck_since
    if now - watch.stuck_since < confirm:
        return Verdict("active", listed.reason)
    return Verdict("impossible", f"{listed.reason}: {IMPOSSIBLE[listed.reason]}")


def needs_accounting(
    watches: Mapping[str, Watch], queue: Mapping[str, Queued], now: float, confirm: float
) -> list[str]:
    """The jobs that sacct should be asked about: those about to be declared gone."""
    return [
        job
        for job, watch in watches.items()
        if (job not in queue or queue[job].state in TERMINAL)
        and watch.absences >= 1
        and watch.absent_since is not None
        and now - watch.absent_since >= confirm
    ]
