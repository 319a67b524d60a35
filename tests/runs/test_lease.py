"""Leases: a run has one writer, and nobody waits for a dead process."""

import multiprocessing
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from kdbench.runs import lease
from kdbench.runs.lease import LeaseLost, Owner

ME = Owner.me()
OTHER = replace(ME, host="elsewhere", pid=1, job="7_1")


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


def test_stale_lease_is_taken_and_its_owner_notices(tmp_path: Path) -> None:
    theirs = lease.acquire(tmp_path, OTHER)
    assert theirs is not None
    age(tmp_path, lease.STALE_SECONDS - 5)
    assert lease.acquire(tmp_path, ME) is None
    age(tmp_path, 10)
    assert not lease.fresh(tmp_path)
    mine = lease.acquire(tmp_path, ME)
    assert mine is not None
    assert mine.held()
    assert not theirs.held()
    lease.touch([theirs, mine])
    assert lease.fresh(tmp_path)
    mine.release()


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


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": "x"}', '{"token": 1, "more": 2}'])
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
    monkeypatch.setattr(lease, "STALE_SECONDS", 0.5)
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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = lease._guard
    monkeypatch.setattr(lease, "_guard", lambda folder: FileLock(guard(folder).lock_file, 0.1))
    mine = lease.acquire(tmp_path, OTHER)
    assert mine is not None
    lease._forget(mine)  # as a stopped process, it does not refresh the lease
    age(tmp_path, 2 * lease.STALE_SECONDS)
    with mine.writing():
        assert lease.acquire(tmp_path, ME) is None
    theirs = lease.acquire(tmp_path, ME)
    assert theirs is not None
    with pytest.raises(LeaseLost, match="taken over by another process"), mine.writing():
        pytest.fail("wrote without the lease")
    with theirs.writing():
        pass
    theirs.release()
