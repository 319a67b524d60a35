"""The fate of a job from Slurm's answers, in cases that occurred on real clusters."""

import pytest

from kdbench.execution.slurm.job_fate import IMPOSSIBLE, Watch, judge, needs_accounting
from kdbench.execution.slurm.scheduler import TERMINAL, Ended, Queued

RUNNING = Queued("RUNNING")


def fates(*answers: tuple[float, Queued | None, Ended | None]) -> list[str]:
    """Return the fates of a job after each of several answers (time, squeue, sacct)."""
    watch = Watch()
    return [judge(watch, listed, ended, now).fate for now, listed, ended in answers]


def test_listed_job_is_active_whatever_sacct_reports() -> None:
    assert fates((0, RUNNING, None), (99, RUNNING, Ended("FAILED"))) == ["active", "active"]


@pytest.mark.parametrize(
    "state", ["CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUED", "RESIZING", "STOPPED", "NEW"]
)
def test_job_in_a_state_that_is_not_final_is_active(state: str) -> None:
    assert fates((0, Queued(state), None), (999, Queued(state), None)) == ["active", "active"]


def test_job_is_gone_after_two_absences_some_seconds_apart() -> None:
    failed = Ended("FAILED", "9:0")
    answers = (0, RUNNING, None), (1, None, failed), (2, None, failed), (12, None, failed)
    assert fates(*answers) == ["active", "unknown", "unknown", "gone"]


@pytest.mark.parametrize(
    ("exit_code", "signal"),
    [("0:6", 6), ("134:0", 6), ("139:0", 11), ("0:11", 11), ("9:0", 0), ("0:0", 0), ("", 0)],
)
def test_verdict_names_the_signal_that_killed_a_job(exit_code: str, signal: int) -> None:
    failed = Ended("FAILED", exit_code, "n1")
    watch = Watch()
    for now in (0, 5, 12):
        verdict = judge(watch, None, failed, now)
    assert (verdict.fate, verdict.signal) == ("gone", signal)
    crash = f" (signal {signal}: crash in native code (torch), not in the method)"
    assert (crash in verdict.why) == bool(signal)
    assert verdict.why.endswith(" on n1")


def test_job_that_is_requeued_after_a_node_failure_is_not_gone() -> None:
    """sacct reports NODE_FAIL for some seconds, then the job waits again."""
    lost = Ended("NODE_FAIL")
    requeued = fates((0, RUNNING, None), (5, None, lost), (9, Queued("PENDING", "BeginTime"), lost))
    assert requeued == ["active", "unknown", "active"]
    again = fates((0, None, lost), (9, Queued("PENDING"), lost), (12, None, lost), (23, None, lost))
    assert again == ["unknown", "active", "unknown", "gone"]


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_final_state_in_squeue_has_to_persist(state: str) -> None:
    end = Queued(state)
    assert fates((0, end, Ended(state)), (11, end, Ended(state))) == ["unknown", "gone"]


@pytest.mark.parametrize("ended", [None, Ended("RUNNING"), Ended("PENDING"), Ended("REQUEUED")])
def test_job_without_a_final_state_has_vanished_after_a_minute(ended: Ended | None) -> None:
    """An element cancelled while it waits has no entry; a lost controller leaves RUNNING."""
    answers = (0, RUNNING, None), (5, None, ended), (20, None, ended), (66, None, ended)
    assert fates(*answers) == ["active", "unknown", "unknown", "vanished"]


def test_job_is_impossible_once_its_reason_persists() -> None:
    for reason in IMPOSSIBLE:
        stuck = Queued("PENDING", reason)
        assert fates((0, stuck, None), (5, stuck, None), (11, stuck, None)) == [
            "active",
            "active",
            "impossible",
        ]
        flickers = fates((0, stuck, None), (5, Queued("PENDING", "Resources"), None))
        assert [*flickers, *fates((11, stuck, None))] == ["active"] * 3


def test_job_that_depends_on_a_failed_job_is_orphaned() -> None:
    assert fates((0, Queued("PENDING", "DependencyNeverSatisfied"), None)) == ["orphaned"]
    assert fates((0, Queued("PENDING", "Dependency"), None)) == ["active"]


def test_sacct_is_asked_only_about_jobs_that_squeue_no_longer_lists() -> None:
    gone, recent, listed = Watch(0.0, 1), Watch(8.0, 1), Watch()
    watches = {"1": gone, "2": recent, "3": listed}
    assert needs_accounting(watches, {"3": RUNNING}, 10.0, 10.0) == ["1"]
    assert needs_accounting(watches, {"1": RUNNING}, 10.0, 10.0) == []


@pytest.mark.parametrize(
    ("reason", "fate"),
    [
        ("launch failed requeued held", "held"),
        ("launch_failed_requeued_held", "held"),
        ("JobHeldAdmin", "active"),
        ("JobHeldUser", "active"),
    ],
)
def test_job_is_held_only_if_slurm_itself_holds_it(reason: str, fate: str) -> None:
    assert judge(Watch(), Queued("PENDING", reason), None, 0.0).fate == fate
