"""The runner on a fake Slurm: jobs that are lost, and runs that are given up."""

import os
from pathlib import Path

import pytest
from fake_slurm import (
    DONE,
    FakeSlurm,
    Job,
    ends_once,
    history,
    lines_of,
    make_runner,
    run_to_end,
    slurm,
    slurm_executor,
    teacher_and_students,
)
from tiny_runs import alone

from kdbench.execution import work
from kdbench.runs import attempts, lease, records
from kdbench.runs.lease import Lease
from kdbench.runs.owner import Owner
from kdbench.runs.records import Record

__all__ = ["slurm"]


@pytest.mark.parametrize(
    "state", ["NODE_FAIL", "PREEMPTED", "TIMEOUT", "CANCELLED", "OUT_OF_MEMORY"]
)
def test_lost_run_is_submitted_again_and_noted_in_its_attempts(
    slurm: FakeSlurm, tmp_path: Path, state: str
) -> None:
    runs = teacher_and_students()
    slurm.on_start = ends_once(state, runs[1].id)
    events = run_to_end(runs, tmp_path, slurm)
    assert work.missing(runs, tmp_path) == []
    repeated = [s for s, _ in slurm.submissions if runs[1].id in s.attempts]
    assert [s.attempts[runs[1].id] for s in repeated] == [1]
    (line,) = attempts.read(tmp_path, runs[1].id)
    assert state in line
    assert state in lines_of(events)


def test_completed_job_without_a_record_is_a_loss(slurm: FakeSlurm, tmp_path: Path) -> None:
    run = alone()

    def on_start(name: str, job: Job) -> str | None:
        if name == "100":
            job.listed, job.accounted = None, DONE
            return "RUNNING"
        return DONE

    slurm.on_start = on_start
    run_to_end([run], tmp_path, slurm)
    assert len(slurm.submissions) == 2
    assert DONE in attempts.read(tmp_path, run.id)[0]


def test_vanished_element_is_submitted_again(slurm: FakeSlurm, tmp_path: Path) -> None:
    """An element cancelled while it waited is in neither squeue nor sacct."""
    runs = [alone(seed) for seed in range(3)]

    def on_start(name: str, job: Job) -> str | None:
        if name == "100_1":
            job.listed = job.accounted = None
            return "gone"
        return DONE

    slurm.on_start = on_start
    run_to_end(runs, tmp_path, slurm)
    assert work.missing(runs, tmp_path) == []
    assert [len(s.elements) for s, _ in slurm.submissions] == [3, 1]


def test_requeued_job_is_not_submitted_twice(slurm: FakeSlurm, tmp_path: Path) -> None:
    run = alone()
    seen = []

    def on_start(name: str, job: Job) -> str | None:
        seen.append(name)
        if len(seen) == 1:
            job.reason, job.accounted = "BeginTime", "NODE_FAIL"
            slurm.faults["squeue"] = let_go
            return "PENDING"
        return DONE

    polls = []

    def let_go() -> str | None:
        polls.append(slurm.clock.now)
        if len(polls) == 8:
            slurm.jobs["100"].reason = "Priority"
        return None

    slurm.on_start = on_start
    original = slurm._start

    def start(name: str, job: Job) -> None:
        how = slurm.on_start(name, job)
        if how == "PENDING":
            return
        slurm.on_start, before = (lambda n, j: how), slurm.on_start
        original(name, job)
        slurm.on_start = before

    slurm._start = start  # type: ignore[method-assign]
    run_to_end([run], tmp_path, slurm)
    assert len(slurm.submissions) == 1
    assert seen == ["100", "100"]


def test_run_fails_after_its_retries_and_keeps_its_history(
    slurm: FakeSlurm, tmp_path: Path
) -> None:
    runs = teacher_and_students(1)
    slurm.on_start = lambda name, job: (
        "NODE_FAIL" if runs[1].id in job.submission.ids(job.index) else DONE
    )
    run_to_end(runs, tmp_path, slurm, slurm_executor(retries=2))
    record = records.read(tmp_path, runs[1].id)
    assert record is not None
    assert record.status == "failed"
    assert "lost 3 times without progress" in record.reason
    assert len(history(tmp_path, runs[1].id)) == 3
    assert records.load(tmp_path, [runs[2].id])[runs[2].id].status == "done"


def test_lost_run_that_another_process_trains_by_now_is_not_recorded_as_failed(
    slurm: FakeSlurm, tmp_path: Path
) -> None:
    run = alone()
    theirs: list[Lease] = []

    def on_start(name: str, job: Job) -> str | None:
        taken = lease.acquire(tmp_path / run.id, Owner("node7", "another boot", 1, "1"))
        theirs.extend([taken] if taken else [])
        return "NODE_FAIL"

    slurm.on_start = on_start
    for _ in make_runner([run], tmp_path, slurm, slurm_executor(retries=0)).events():
        if slurm.clock.now > 2000:
            break
    assert len(slurm.submissions) == 1
    assert not records.has_record(tmp_path, run.id)
    assert theirs[0].held()
    theirs[0].release()


def test_crash_in_native_code_is_named_in_the_record(slurm: FakeSlurm, tmp_path: Path) -> None:
    runs = teacher_and_students(1)

    def crash(name: str, job: Job) -> str:
        if runs[1].id not in job.submission.ids(job.index):
            return DONE
        job.code = "0:11"
        return "FAILED"

    slurm.on_start = crash
    run_to_end(runs, tmp_path, slurm, slurm_executor(retries=1))
    record = records.read(tmp_path, runs[1].id)
    assert record is not None
    assert "signal 11: crash in native code (torch), not in the method" in record.reason
    assert "; network: r8w3; try another version of torch" in record.reason


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("0:11", "signal 11: crash in native code (torch), not in the method"),
        ("70:0", "exit code 70: an error on the GPU, after which it refused all work"),
    ],
)
def test_only_the_run_that_crashes_its_job_fails(
    slurm: FakeSlurm, tmp_path: Path, code: str, cause: str
) -> None:
    """A crash takes the whole cohort with it; then its runs are submitted one by one."""
    runs = [alone(student=f"r8w{width}") for width in (3, 4, 5)]

    def crash(name: str, job: Job) -> str:
        if runs[1].id not in job.submission.ids(job.index):
            return DONE
        job.code = code
        return "FAILED"

    slurm.on_start = crash
    run_to_end(runs, tmp_path, slurm, slurm_executor(retries=1))
    written = records.load(tmp_path, (run.id for run in runs))
    assert [written[run.id].status for run in runs] == ["done", "failed", "done"]
    assert cause in written[runs[1].id].reason
    assert len(slurm.submissions[0][0].ids(0)) == 3


def test_losses_with_progress_in_between_do_not_count(slurm: FakeSlurm, tmp_path: Path) -> None:
    run = alone()
    starts = []

    def on_start(name: str, job: Job) -> str | None:
        starts.append(name)
        if len(starts) > 6:
            return DONE
        (tmp_path / run.id / "checkpoint.pt").write_text(name)
        os.utime(tmp_path / run.id / "checkpoint.pt", (len(starts), len(starts)))
        return "PREEMPTED"

    slurm.on_start = on_start
    run_to_end([run], tmp_path, slurm, slurm_executor(retries=1))
    record = records.read(tmp_path, run.id)
    assert record is not None
    assert (record.status, len(starts)) == ("done", 7)


def test_students_of_a_failed_teacher_are_left_alone(slurm: FakeSlurm, tmp_path: Path) -> None:
    runs = teacher_and_students(1)

    def on_start(name: str, job: Job) -> str | None:
        if runs[0].id in job.submission.ids(job.index):
            records.write(tmp_path, Record(runs[0].id, "failed", "no luck"))
            return "FAILED"
        return DONE

    slurm.on_start = on_start
    events = run_to_end(runs, tmp_path, slurm)
    assert [records.read(tmp_path, run.id) is None for run in runs] == [False, False, True]
    assert events[-1].left == 1


def test_orphan_is_cancelled_and_its_run_submitted_again(slurm: FakeSlurm, tmp_path: Path) -> None:
    """A job that waited for its teacher's lost job waits for the new job instead."""
    runs = teacher_and_students(1)
    slurm.on_start = ends_once("NODE_FAIL", runs[0].id)
    run_to_end(runs, tmp_path, slurm)
    assert work.missing(runs, tmp_path) == []
