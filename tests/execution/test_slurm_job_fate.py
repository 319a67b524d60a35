"""What has become of a job, from what Slurm says: each row of what was seen on real clusters."""

import pytest

from kdbench.execution.slurm.job_fate import IMPOSSIBLE, Watch, judge, needs_accounting
from kdbench.execution.slurm.scheduler import TERMINAL, Ended, Queued

RUNNING = Queued("RUNNING")


def fates(*seen: tuple[float, Queued | None, Ended | None]) -> list[str]:
    """The fates of one job after each of several answers (when, squeue, sacct)."""
    watch = Watch()
    return [judge(watch, listed, ended, now).fate for now, listed, ended in seen]


def test_a_listed_job_is_active_whatever_sacct_says() -> None:
    assert fates((0, RUNNING, None), (99, RUNNING, Ended("FAILED"))) == ["active", "active"]


@pytest.mark.parametrize(
    "state", ["CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUED", "RESIZING", "STOPPED", "NEW"]
)
def test_states_that_are_no_end_are_active(state: str) -> None:
    assert fates((0, Queued(state), None), (999, Queued(state), None)) == ["active", "active"]


def test_an_end_is_believed_when_it_was_seen_twice_and_some_seconds_apart() -> None:
    failed = Ended("FAILED", "9:0")
    seen = fates((0, RUNNING, None), (1, None, failed), (2, None, failed), (12, None, failed))
    assert seen == ["active", "unknown", "unknown", "gone"]


@pytest.mark.parametrize(
    ("exit_code", "signal"),
    [("0:6", 6), ("134:0", 6), ("139:0", 11), ("0:11", 11), ("9:0", 0), ("0:0", 0), ("", 0)],
)
def test_a_job_tells_which_signal_it_died_of(exit_code: str, signal: int) -> None:
    failed = Ended("FAILED", exit_code, "n1")
    watch = Watch()
    for now in (0, 5, 12):
        verdict = judge(watch, None, failed, now)
    assert (verdict.fate, verdict.signal) == ("gone", signal)
    crash = f" (signal {signal}: crash in native code (torch), not in the method)"
    assert (crash in verdict.why) == bool(signal)
    assert verdict.why.endswith(" on n1")


def test_a_node_failure_that_is_requeued_is_no_end() -> None:
    """sacct says NODE_FAIL for some seconds, then the job waits again."""
    lost = Ended("NODE_FAIL")
    seen = fates((0, RUNNING, None), (5, None, lost), (9, Queued("PENDING", "BeginTime"), lost))
    assert seen == ["active", "unknown", "active"]
    after = fates((0, None, lost), (9, Queued("PENDING"), lost), (12, None, lost), (23, None, lost))
    assert after == ["unknown", "active", "unknown", "gone"]


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_a_final_state_in_squeue_has_to_stay(state: str) -> None:
    end = Queued(state)
    assert fates((0, end, Ended(state)), (11, end, Ended(state))) == ["unknown", "gone"]


@pytest.mark.parametrize("said", [None, Ended("RUNNING"), Ended("PENDING"), Ended("REQUEUED")])
def test_what_neither_lists_nor_ends_has_vanished_after_a_minute(said: Ended | None) -> None:
    """An element cancelled while it waits leaves no row; a lost controller leaves RUNNING."""
    seen = fates((0, RUNNING, None), (5, None, said), (20, None, said), (66, None, said))
    assert seen == ["active", "unknown", "unknown", "vanished"]


def test_what_waits_for_nothing_is_impossible_once_it_stays() -> None:
    for reason in IMPOSSIBLE:
        stuck = Queued("PENDING", reason)
        assert fates((0, stuck, None), (5, stuck, None), (11, stuck, None)) == [
            "active",
            "active",
            "impossible",
        ]
        flickers = fates((0, stuck, None), (5, Queued("PENDING", "Resources"), None))
        assert [*flickers, *fates((11, stuck, None))] == ["active"] * 3


def test_waiting_for_a_job_that_failed_is_orphaned() -> None:
    assert fates((0, Queued("PENDING", "DependencyNeverSatisfied"), None)) == ["orphaned"]
    assert fates((0, Queued("PENDING", "Dependency"), None)) == ["active"]


def test_sacct_is_asked_only_about_what_squeue_no_longer_lists() -> None:
    gone, fresh, there = Watch(0.0, 1), Watch(8.0, 1), Watch()
    watches = {"1": gone, "2": fresh, "3": there}
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
def test_what_slurm_holds_is_lost_and_what_an_operator_holds_is_not(reason: str, fate: str) -> None:
    assert judge(Watch(), Queued("PENDING", reason), None, 0.0).fate == fate
