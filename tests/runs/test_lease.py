"""Leases: one writer, and nobody waits for the dead."""

import multiprocessing
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kdbench.runs import lease
from kdbench.runs.lease import Owner

ME = Owner.me()
OTHER = replace(ME, host="elsewhere", pid=1, job="7_1")


def age(folder: Path, seconds: float) -> None:
    """Make a lease as old as that."""
    path = folder / lease.NAME
    when = path.stat().st_mtime - seconds
    os.utime(path, (when, when))


def test_a_held_run_is_nobody_elses_until_it_is_given_back(tmp_path: Path) -> None:
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


def test_a_stale_lease_is_stolen_and_its_owner_notices(tmp_path: Path) -> None:
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


def test_a_dead_process_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from kdbench.runs import lease; "
        "lease.acquire(pathlib.Path(sys.argv[1]), lease.Owner.me())"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert (tmp_path / lease.NAME).exists()
    assert not lease.fresh(tmp_path)
    assert lease.acquire(tmp_path, ME) is not None


def test_a_pid_that_is_used_again_is_another_process(tmp_path: Path) -> None:
    assert lease.acquire(tmp_path, replace(ME, started="1")) is not None
    assert lease.acquire(tmp_path, ME) is not None


def test_where_a_process_cannot_be_seen_its_pid_says_nothing(tmp_path: Path) -> None:
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
def test_a_job_that_was_started_again_yields(
    tmp_path: Path, theirs: dict[str, str | int], mine: dict[str, str | int], free: bool
) -> None:
    assert lease.acquire(tmp_path, replace(OTHER, **theirs)) is not None  # type: ignore[arg-type]
    got = lease.acquire(tmp_path, replace(OTHER, pid=2, **mine))  # type: ignore[arg-type]
    assert (got is not None) == free


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": "x"}', '{"token": 1, "more": 2}'])
def test_a_damaged_lease_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / lease.NAME).write_text(content)
    assert not lease.fresh(tmp_path)
    assert lease.acquire(tmp_path, ME) is not None


def test_of_many_who_want_a_run_one_gets_it(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    line = fork.Barrier(6)
    many = [fork.Process(target=_want, args=(tmp_path, line, i)) for i in range(6)]
    for one in many:
        one.start()
    for one in many:
        one.join()
    assert len(list(tmp_path.glob("got-*"))) == 1


def _want(folder: Path, line: "multiprocessing.synchronize.Barrier", number: int) -> None:
    owner = Owner.me()
    line.wait()
    if lease.acquire(folder, owner) is not None:
        (folder / f"got-{number}").touch()
    line.wait()  # nobody dies before all have tried


def test_a_lease_is_kept_fresh_without_its_owners_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "STALE_SECONDS", 0.5)
    monkeypatch.setattr(lease, "_mine", set())
    monkeypatch.setattr(lease, "_keeper", [])  # a thread of its own, with this test's pace
    mine = lease.acquire(tmp_path, OTHER)
    assert mine is not None
    age(tmp_path, 1000)
    for _ in range(100):
        if lease.fresh(tmp_path):
            break
        subprocess.run(["sleep", "0.05"], check=True)
    else:
        pytest.fail("nobody freshened it")
    mine.release()
