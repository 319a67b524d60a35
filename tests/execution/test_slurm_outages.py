"""The runner on a Slurm that does not answer, refuses jobs or loses track of them."""

from pathlib import Path
from typing import Any

import pytest
from fake_grids import done
from fake_slurm import (
    DONE,
    FakeSlurm,
    Job,
    ends_once,
    lines_of,
    make_runner,
    run_to_end,
    slurm,
    slurm_executor,
    teacher_and_students,
)
from tiny_runs import alone

from kdbench.errors import UserError
from kdbench.execution import work
from kdbench.execution.slurm import submissions, submit
from kdbench.execution.slurm.jobs_of_grid import cancel
from kdbench.execution.slurm.scheduler import SchedulerError, run_command
from kdbench.execution.work import JobError
from kdbench.runs import attempts, lease, records
from kdbench.runs.owner import Owner

__all__ = ["slurm"]


def test_nothing_is_concluded_while_squeue_does_not_answer(
    slurm: FakeSlurm, tmp_path: Path
) -> None:
    slurm.seconds = 900.0
    began: list[float] = []

    def away() -> str | None:
        began.append(slurm.clock.now)
        return "connection refused" if 50 < slurm.clock.now - began[0] < 700 else None

    slurm.faults["squeue"] = away
    events = run_to_end(teacher_and_students(), tmp_path, slurm)
    assert len(slurm.submissions) == 2
    assert "does not answer, jobs continue: squeue: connection refused" in lines_of(events)
    assert "answers again" in lines_of(events)


AWAY = "Unable to contact slurm controller (connect failure)"


def test_unreachable_controller_causes_no_loss(slurm: FakeSlurm, tmp_path: Path) -> None:
    """All commands fail at times, as while slurmctld is restarted."""
    slurm.seconds = 100.0
    for name in ("squeue", "sinfo", "scontrol", "scancel"):
        slurm.faults[name] = lambda: f"slurm_load_jobs error: {AWAY}" if away() else None
    slurm.faults["sbatch"] = lambda: f"sbatch: error: {AWAY}" if away() else None

    def away() -> bool:
        return slurm.clock.now % 90 < 45

    runs = teacher_and_students()
    events = run_to_end(runs, tmp_path, slurm)
    assert work.missing(runs, tmp_path) == []
    assert len(slurm.submissions) == 2 and slurm.cancelled == []
    assert all(attempts.read(tmp_path, run.id) == () for run in runs)
    assert f"does not answer, jobs continue: squeue: slurm_load_jobs error: {AWAY}" in lines_of(
        events
    )


def test_output_of_a_failed_command_is_the_error_message() -> None:
    command = f"echo 'slurm_load_jobs error: {AWAY}' >&2; exit 1"
    with pytest.raises(SchedulerError, match=r"^sh: slurm_load_jobs error: .*\(connect failure\)$"):
        run_command(["sh", "-c", command], 5)


def test_cancel_reports_that_slurm_does_not_answer(slurm: FakeSlurm, tmp_path: Path) -> None:
    slurm.on_start = lambda name, job: None
    runs = [alone()]
    list(make_runner(runs, tmp_path, slurm).submit_all())
    slurm.faults["scancel"] = lambda: f"scancel: error: {AWAY}"
    with pytest.raises(
        UserError, match=r"^Slurm does not answer, jobs may continue; try again: scanc"
    ):
        cancel(runs, tmp_path, slurm.scheduler())
    assert [job.listed for job in slurm.jobs.values()] != [None]


def test_losses_are_found_without_accounting(slurm: FakeSlurm, tmp_path: Path) -> None:
    run = alone()
    slurm.on_start = ends_once("NODE_FAIL")
    slurm.faults["sacct"] = lambda: "slurmdbd is away"
    run_to_end([run], tmp_path, slurm)
    assert len(slurm.submissions) == 2
    assert "sacct has no entry" in attempts.read(tmp_path, run.id)[0]


def test_job_that_slurm_lost_track_of_continues_while_it_holds_its_lease(
    slurm: FakeSlurm, tmp_path: Path
) -> None:
    run = alone()
    holder = Owner("elsewhere", "", 1, "1", job="100")
    held: list[Any] = []

    def on_start(name: str, job: Job) -> str | None:
        if name == "100":
            held.append(lease.acquire(tmp_path / run.id, holder))
            job.listed, job.accounted = None, "RUNNING"
            return "RUNNING"
        return DONE

    slurm.on_start = on_start
    events = make_runner([run], tmp_path, slurm).events()
    for _ in events:
        if slurm.clock.now > 2000:
            break
    assert len(slurm.submissions) == 1
    held[0].release()
    list(events)
    assert len(slurm.submissions) == 2


def test_sbatch_without_an_answer_is_looked_up_before_it_is_repeated(
    slurm: FakeSlurm, tmp_path: Path
) -> None:
    answers = iter(["after: sbatch: error: Socket timed out on send/recv operation"])
    slurm.faults["sbatch"] = lambda: next(answers, None)
    slurm.on_start = lambda name, job: None if name == "100" else DONE  # it has no function
    run = alone()
    events = run_to_end([run], tmp_path, slurm)
    assert slurm.cancelled == ["100"]
    assert len(slurm.submissions) == 2
    assert "Socket timed out" in lines_of(events)
    assert attempts.read(tmp_path, run.id) == ()


def test_failed_sbatch_is_repeated(slurm: FakeSlurm, tmp_path: Path) -> None:
    answers = iter([f"sbatch: error: {AWAY}"] * 3)
    slurm.faults["sbatch"] = lambda: next(answers, None)
    run = alone()
    run_to_end([run], tmp_path, slurm)
    assert work.missing([run], tmp_path) == []
    assert slurm.cancelled == []


def test_next_runner_looks_up_the_job_of_a_runner_killed_during_sbatch(
    slurm: FakeSlurm, tmp_path: Path
) -> None:
    """The submission is looked up by its name; its job is cancelled and submitted again."""
    run = alone()
    slurm.faults["sbatch"] = lambda: "after: killed"
    slurm.on_start = lambda name, job: None if name == "100" else DONE
    first = make_runner([run], tmp_path, slurm)
    with pytest.raises(JobError, match="not all runs were submitted"):
        list(first.submit_all())
    del slurm.faults["sbatch"]
    run_to_end([run], tmp_path, slurm)
    assert work.missing([run], tmp_path) == []
    assert {j.listed for j in slurm.jobs.values()} == {None}


@pytest.mark.parametrize(
    "message",
    [
        "sbatch: error: invalid partition specified: x",
        "sbatch: error: Batch job submission failed: Requested node configuration is not available",
        "sbatch: error: Memory specification can not be satisfied",
        "sbatch: error: Batch job submission failed: Requested time limit is invalid (missing or "
        "exceeds some limit)",
        "sbatch: error: Batch job submission failed: Invalid account or account/partition "
        "combination specified",
    ],
)
def test_refusal_is_one_line_with_the_message_of_slurm(
    slurm: FakeSlurm, tmp_path: Path, message: str
) -> None:
    slurm.faults["sbatch"] = lambda: message
    with pytest.raises(JobError) as error:
        run_to_end([alone()], tmp_path, slurm)
    assert str(error.value) == f"executor.slurm: {message}"
    assert submissions.unfinished(tmp_path) == []


def test_jobs_above_the_submit_limit_are_submitted_later(slurm: FakeSlurm, tmp_path: Path) -> None:
    runs = [alone(seed) for seed in range(6)]

    def limit() -> str | None:
        waiting = sum(job.listed is not None for job in slurm.jobs.values())
        reason = (
            "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
        )
        return f"sbatch: error: Batch job submission failed: {reason}" if waiting else None

    slurm.faults["sbatch"] = limit
    run_to_end(runs, tmp_path, slurm, slurm_executor(chunk=2))
    assert work.missing(runs, tmp_path) == []


def test_job_that_would_wait_forever_is_cancelled_with_one_line(
    slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = slurm.sbatch

    def sbatch(*args: Any) -> str:
        number = original(*args)
        slurm.jobs[number].reason = "stuck"
        return number

    monkeypatch.setattr(submit, "_sbatch", sbatch)
    squeue = slurm._squeue
    slurm._squeue = lambda command: squeue(command).replace("stuck", "PartitionConfig")  # type: ignore[method-assign]
    with pytest.raises(JobError, match="job 100 would wait forever: PartitionConfig: it requests"):
        run_to_end([alone()], tmp_path, slurm)
    assert slurm.cancelled == ["100"]


@pytest.mark.parametrize("held", ["launch failed requeued held", "launch_failed_requeued_held"])
def test_job_held_by_slurm_after_a_failed_launch_is_submitted_again(
    slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: str
) -> None:
    original = slurm.sbatch

    def sbatch(*args: Any) -> str:
        number = original(*args)
        if len(slurm.submissions) == 1:
            slurm.jobs[number].reason = "stuck"
        return number

    monkeypatch.setattr(submit, "_sbatch", sbatch)
    squeue = slurm._squeue
    slurm._squeue = lambda command: squeue(command).replace("stuck", held)  # type: ignore[method-assign]
    run = alone()
    run_to_end([run], tmp_path, slurm)
    assert slurm.cancelled == ["100"]
    assert len(slurm.submissions) == 2
    assert work.missing([run], tmp_path) == []
    assert [line for line in attempts.read(tmp_path, run.id) if f"held by Slurm: {held}" in line]


def test_job_that_does_not_end_is_cancelled_once_its_records_exist(
    slurm: FakeSlurm, tmp_path: Path
) -> None:
    """If slurmstepd dies, Slurm reports RUNNING until the time limit after the runs have ended."""
    runs = [alone(0), alone(1)]

    def on_start(name: str, job: Job) -> str | None:
        if name == "100_0":
            records.write(tmp_path, done(runs[0].id))
            return None
        return DONE

    slurm.on_start, slurm.seconds = on_start, 600.0
    run_to_end(runs, tmp_path, slurm)
    assert slurm.cancelled == ["100_0"]
