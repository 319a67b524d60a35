"""Leases: a run has one writer, and nobody waits for a dead process."""

import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kdbench.runs import lease, signs_of_life
from kdbench.runs.lease import LeaseLost
from kdbench.runs.owner import Owner
from kdbench.runs.signs_of_life import STALE_SECONDS

ME = Owner.me()
OTHER = replace(ME, host="elsewhere", pid=1, job="7_1")


class Clock:
    """A monotonic clock that a test sets."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(signs_of_life, "time", clock)
    monkeypatch.setattr(signs_of_life, "_seen", {})
    monkeypatch.setattr(lease, "time", clock)
    monkeypatch.setattr(lease, "_refused", {})
    return clock


def age(folder: Path, seconds: float) -> None:
    """Set the age of a lease in seconds."""
    path = folder / lease.NAME
    when = path.stat().st_mtime - seconds
    os.utime(path, (when, when))


def test_held_run_cannot_be_acquired_until_it_is_released(tmp_path: Path) -> None:
    first = lease.acquire(tmp_path, ME)
    assert first is not None
    assert first.held()
    assert lease.fresh(tmp_path)
    assert lease.acquire(tmp_path, ME) is None
    assert lease.acquire(tmp_path, OTHER) is None
    first.release()
    assert not lease.fresh(tmp_path)
    second = lease.acquire(tmp_path, OTHER)
    assert second is not None
    assert not first.held()
    first.release()  # too late: it is another's
    assert second.held()
    second.release()


def test_stale_lease_is_taken_and_its_owner_notices(tmp_path: Path, clock: Clock) -> None:
    theirs = lease.acquire(tmp_path, OTHER)
    assert theirs is not None
    age(tmp_path, STALE_SECONDS - 5)
    assert lease.acquire(tmp_path, ME) is None
    age(tmp_path, 10)
    assert not lease.fresh(tmp_path)
    assert lease.acquire(tmp_path, ME) is None  # the stamp may be that of a wrong clock
    clock.now += signs_of_life.CONFIRM * STALE_SECONDS
    mine = lease.acquire(tmp_path, ME)
    assert mine is not None
    assert mine.held()
    assert not theirs.held()
    lease.touch([theirs, mine])
    assert lease.fresh(tmp_path)
    mine.release()


@pytest.mark.parametrize("wrong", [-86400.0, 86400.0], ids=["a day ahead", "a day behind"])
def test_wrong_clock_neither_keeps_nor_loses_a_lease(
    tmp_path: Path, clock: Clock, wrong: float
) -> None:
    theirs = lease.acquire(tmp_path, OTHER)
    assert theirs is not None
    for _ in range(30):  # renewed often enough, by a machine whose clock is wrong
        lease.touch([theirs])
        age(tmp_path, wrong)
        assert lease.acquire(tmp_path, ME) is None
        clock.now += STALE_SECONDS / 10
    lease.touch([theirs])
    age(tmp_path, wrong)
    assert lease.acquire(tmp_path, ME) is None
    clock.now += STALE_SECONDS
    assert lease.acquire(tmp_path, ME) is not None
    assert not theirs.held()


def test_machine_that_was_suspended_keeps_its_leases(tmp_path: Path, clock: Clock) -> None:
    """All stamps are hours old then, but the monotonic clock has not moved."""
    assert lease.acquire(tmp_path, OTHER) is not None
    assert lease.acquire(tmp_path, ME) is None
    age(tmp_path, 8 * 3600)
    assert lease.acquire(tmp_path, ME) is None


def test_holder_is_described_with_its_last_sign(tmp_path: Path) -> None:
    assert lease.holder(tmp_path) is None
    assert lease.acquire(tmp_path, replace(OTHER, host="node7")) is not None
    age(tmp_path, 60)
    assert str(lease.holder(tmp_path)) == "node7 (pid 1, job 7_1), last sign 1.0 min ago"
    age(tmp_path, -86460)
    future = "node7 (pid 1, job 7_1), last sign dated 24.0 h in the future by a wrong clock"
    assert str(lease.holder(tmp_path)) == future


HOLD_LOCK = """
import sys, time, filelock
lock = filelock.FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
time.sleep(1000)
"""


def test_process_stopped_with_the_lock_blocks_a_run_for_a_while_only(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "GUARD_SECONDS", 0.1)
    mine = lease.acquire(tmp_path, replace(OTHER, restart=0))
    assert mine is not None
    code = [sys.executable, "-c", HOLD_LOCK, str(tmp_path / "lock")]
    with subprocess.Popen(code, stdout=subprocess.PIPE) as stopped:
        assert stopped.stdout is not None and stopped.stdout.readline() == b"held\n"
        stopped.send_signal(signal.SIGSTOP)
        try:
            with mine.writing():  # the owner is not blocked
                pass
            later = replace(OTHER, pid=2, restart=1)
            assert lease.acquire(tmp_path, later) is None
            clock.now += STALE_SECONDS
            assert lease.acquire(tmp_path, later) is None  # the lock is replaced
            assert lease.acquire(tmp_path, later) is not None
        finally:
            stopped.kill()


def test_dead_process_holds_no_lease(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from kdbench.runs import lease; "
        "lease.acquire(pathlib.Path(sys.argv[1]), lease.Owner.me())"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert (tmp_path / lease.NAME).exists()
    assert not lease.fresh(tmp_path)
    assert lease.acquire(tmp_path, ME) is not None


def test_reused_pid_is_another_process(tmp_path: Path) -> None:
    assert lease.acquire(tmp_path, replace(ME, started="1")) is not None
    assert lease.acquire(tmp_path, ME) is not None


def test_pid_of_another_host_is_not_judged(tmp_path: Path) -> None:
    assert lease.acquire(tmp_path, replace(ME, place="another boot", started="1")) is not None
    assert lease.acquire(tmp_path, ME) is None


@pytest.mark.parametrize(
    ("theirs", "mine", "free"),
    [
        ({"job": "7_1", "restart": 0}, {"job": "7_1", "restart": 1}, True),
        ({"job": "7_1", "restart": 1}, {"job": "7_1", "restart": 1}, False),
        ({"job": "7_1", "restart": 2}, {"job": "7_1", "restart": 1}, False),
        ({"job": "7_1", "attempt": 0}, {"job": "9_1", "attempt": 1}, True),
        ({"job": "9_1", "attempt": 1}, {"job": "7_1", "attempt": 0}, False),
        ({"job": "7_1", "attempt": 0}, {"job": "", "attempt": 1}, False),
    ],
)
def test_earlier_start_of_a_job_yields_to_a_later_one(
    tmp_path: Path, theirs: dict[str, str | int], mine: dict[str, str | int], free: bool
) -> None:
    assert lease.acquire(tmp_path, replace(OTHER, **theirs)) is not None  # type: ignore[arg-type]
    got = lease.acquire(tmp_path, replace(OTHER, pid=2, **mine))  # type: ignore[arg-type]
    assert (got is not None) == free


OWNED = '{"host": "x", "place": "", "pid": %s, "started": "", "token": "t"}'


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"host": "x"}', '{"token": 1, "more": 2}', OWNED % '"7"', OWNED % "null",
     "[" * 100_000, "\x00\x00"],
)  # fmt: skip
def test_damaged_lease_counts_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / lease.NAME).write_text(content)
    assert not lease.fresh(tmp_path)
    assert lease.acquire(tmp_path, ME) is not None


def test_only_one_of_many_processes_acquires_a_run(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    line = fork.Barrier(6)
    many = [fork.Process(target=_want, args=(tmp_path, line, i)) for i in range(6)]
    for process in many:
        process.start()
    for process in many:
        process.join()
    assert len(list(tmp_path.glob("got-*"))) == 1


def _want(folder: Path, line: "multiprocessing.synchronize.Barrier", number: int) -> None:
    owner = Owner.me()
    line.wait()
    if lease.acquire(folder, owner) is not None:
        (folder / f"got-{number}").touch()
    line.wait()  # no process ends before all have tried


def test_lease_is_refreshed_in_the_background(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signs_of_life, "STALE_SECONDS", 0.5)
    monkeypatch.setattr(lease, "_mine", set())
    monkeypatch.setattr(lease, "_refresher", [])  # a separate thread with this interval
    mine = lease.acquire(tmp_path, OTHER)
    assert mine is not None
    age(tmp_path, 1000)
    for _ in range(100):
        if lease.fresh(tmp_path):
            break
        subprocess.run(["sleep", "0.05"], check=True)
    else:
        pytest.fail("the lease was not refreshed")
    mine.release()


# --- putting files in place -----------------------------------------------------------------------


def test_lease_cannot_be_taken_while_its_owner_puts_a_file_in_place(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "GUARD_SECONDS", 0.1)
    mine = lease.acquire(tmp_path, OTHER)
    assert mine is not None
    lease._forget(mine)  # as a stopped process, it does not refresh the lease
    assert lease.acquire(tmp_path, ME) is None
    clock.now += STALE_SECONDS
    with mine.writing():
        assert lease.acquire(tmp_path, ME) is None
    theirs = lease.acquire(tmp_path, ME)
    assert theirs is not None
    with pytest.raises(LeaseLost, match="taken over by another process"), mine.writing():
        pytest.fail("wrote without the lease")
    with theirs.writing():
        pass
    theirs.release()
