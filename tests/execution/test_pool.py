"""Deaths of workers count for the runs that they held, and for no others."""

import os
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from debug_runner import DEBUG
from tiny_runs import alone

from kdbench.execution.pool import CRASHES, Pool
from kdbench.execution.work import Work
from kdbench.runs import heartbeat, lease, records
from kdbench.runs.heartbeat import Beat
from kdbench.runs.owner import Owner

ME = Owner.me()
ELSEWHERE = replace(ME, host="node7", place="another boot")
"""A process of another machine with the pid and the start time of this one."""


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pool:
    """A pool whose worker is this process."""
    worker: Any = SimpleNamespace(pid=os.getpid(), exitcode=-9)
    monkeypatch.setattr(Pool, "_start", lambda self, number: worker)
    runs = [alone()]
    return Pool(Work((tuple(runs),), tmp_path, Path("data"), DEBUG), 1, runs)


def die(pool: Pool, times: int = CRASHES) -> None:
    """Let the worker of a pool die several times."""
    for _ in range(times):
        pool._handle_death(pool.processes[0], ME.process)


def beat_of(pool: Pool, owner: Owner) -> str:
    """Write a heartbeat of the pool's run as a process; return the id of the run."""
    (run,) = pool.todo
    records.write_run(pool.task.runs, run)
    made = Beat(
        run=run.id, cohort=run.id, title=run.title, phase="train", epoch=1, epochs=3, step=1,
        steps=4, images_per_s=1.0, acc=None, eta=None, pid=owner.pid, host=owner.host,
        at=time.time(), process=owner.process,
    )  # fmt: skip
    heartbeat.write(pool.task.runs, made)
    return run.id


def test_run_of_a_worker_that_keeps_dying_fails(pool: Pool) -> None:
    run_id = beat_of(pool, ME)
    die(pool, CRASHES - 1)
    assert records.read(pool.task.runs, run_id) is None
    die(pool, 1)
    record = records.read(pool.task.runs, run_id)
    assert record is not None and record.status == "failed"
    assert lease.holder(pool.task.runs / run_id) is None


def test_run_fails_although_no_process_can_be_looked_up(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on systems without /proc, where the lease of the dead worker still looks alive."""
    monkeypatch.setattr(Owner, "is_dead", lambda self: False)
    run_id = beat_of(pool, ME)
    assert lease.acquire(pool.task.runs / run_id, ME) is not None
    die(pool)
    record = records.read(pool.task.runs, run_id)
    assert record is not None and record.status == "failed"


def test_death_does_not_count_for_a_run_of_another_host_with_this_pid(pool: Pool) -> None:
    run_id = beat_of(pool, ELSEWHERE)
    theirs = lease.acquire(pool.task.runs / run_id, ELSEWHERE)
    assert theirs is not None
    die(pool)
    assert records.read(pool.task.runs, run_id) is None
    assert not pool.deaths and theirs.held()
    theirs.release()


def test_run_that_another_process_has_taken_over_is_not_recorded_as_failed(pool: Pool) -> None:
    run_id = beat_of(pool, ME)
    theirs = lease.acquire(pool.task.runs / run_id, ELSEWHERE)
    assert theirs is not None
    die(pool)
    assert records.read(pool.task.runs, run_id) is None
    assert theirs.held()
    theirs.release()
