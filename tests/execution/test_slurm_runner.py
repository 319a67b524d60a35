"""The runner on Slurm against a fake one: what it submits, concludes and gives up."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_slurm import DONE, FakeSlurm, Job, histories, slurm
from tiny_runs import alone, taught

from kdbench.errors import UserError
from kdbench.execution import work
from kdbench.execution.events import Event
from kdbench.execution.slurm import code_snapshot, submissions, submit
from kdbench.execution.slurm.runner import SlurmRunner, cancel
from kdbench.execution.slurm.scheduler import SchedulerError, run_command
from kdbench.execution.work import JobError
from kdbench.grid.grid import Executor
from kdbench.grid.resources import Slurm
from kdbench.grid.run import Run
from kdbench.runs import attempts, lease, records
from kdbench.runs.lease import Owner
from kdbench.runs.records import Record

__all__ = ["slurm"]


@pytest.fixture(autouse=True)
def _no_copies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Snapshots have tests of their own."""
    monkeypatch.setattr(code_snapshot, "take", lambda runs, todo: tmp_path / "code")


def school(seeds: int = 2) -> list[Run]:
    teacher = alone(student="r8w4")
    students = [taught(teacher, "kd", seed=seed) for seed in range(seeds)]
    return [teacher, *(alone(seed) for seed in range(seeds)), *students]


def executor(**values: Any) -> Executor:
    more = {key: values.pop(key) for key in ("cohort", "ranks") if key in values}
    return Executor(kind="slurm", slurm=Slurm(**values), **more)


def make(
    runs: Sequence[Run], folder: Path, fake: FakeSlurm, how: Executor | None = None
) -> SlurmRunner:
    return SlurmRunner(runs, "g", folder, folder / "data", how or executor(), fake.scheduler())


def finish(
    runs: Sequence[Run], folder: Path, fake: FakeSlurm, how: Executor | None = None
) -> list[Event]:
    folder.mkdir(exist_ok=True)
    return list(make(runs, folder, fake, how).events())


def once(how: str, of: str = "") -> Any:
    """The first job that trains a run ends so; the others well."""
    seen: set[str] = set()

    def on_start(name: str, job: Job) -> str | None:
        ids = job.submission.ids(job.index)
        if (not of or of in ids) and not seen & set(ids) and not (of == "" and seen):
            seen.update(ids)
            return how
        return DONE

    return on_start


def said(events: list[Event]) -> str:
    return "\n".join(event.line for event in events if event.line)


# --- the happy path ---


def test_teachers_first_then_students_that_wait_for_them(slurm: FakeSlurm, tmp_path: Path) -> None:
    runs = school()
    events = finish(runs, tmp_path, slurm)
    assert work.missing(runs, tmp_path) == []
    assert Counter(run.id for event in events for run, _ in event.ended) == Counter(
        run.id for run in runs
    )
    after = [parameters["additional_parameters"] for _, parameters in slurm.submissions]
    waits = [more.get("dependency") for more in after]
    teacher = next(k for k, j in slurm.jobs.items() if runs[0].id in j.submission.ids(j.index))
    assert waits.count(f"afterok:{teacher}") == len([w for w in waits if w]) > 0
    assert all(more["kill-on-invalid-dep"] == "yes" for more in after if more.get("dependency"))
    assert finish(runs, tmp_path, slurm) == []


def test_a_chain_of_teachers_is_submitted_at_once(slurm: FakeSlurm, tmp_path: Path) -> None:
    first = alone(student="r8w4")
    second = taught(first, "kd", student="r8w3")
    third = taught(second, "at", student="v5w4")
    for event in make([first, second, third], tmp_path, slurm).submit_all():
        assert event.line == "3 runs submitted"
    waits = [p["additional_parameters"].get("dependency") for _, p in slurm.submissions]
    assert waits == [None, "afterok:100", "afterok:101"]


def test_names_are_unique_and_folders_fresh(slurm: FakeSlurm, tmp_path: Path) -> None:
    finish(school(), tmp_path, slurm)
    names = [submission.name for submission, _ in slurm.submissions]
    assert len(set(names)) == len(names)
    assert all(name.startswith("kdb-g-") for name in names)
    assert [p["job_name"] for _, p in slurm.submissions] == names


def test_arrays_stay_below_what_the_cluster_takes(slurm: FakeSlurm, tmp_path: Path) -> None:
    slurm.max_array = 8
    runs = [alone(seed) for seed in range(20)]
    finish(runs, tmp_path, slurm)
    assert sorted(len(s.elements) for s, _ in slurm.submissions) == [6, 7, 7]
    assert work.missing(runs, tmp_path) == []


# --- resources ---


def test_resources_reach_sbatch(slurm: FakeSlurm, tmp_path: Path) -> None:
    how = executor(
        partition="main", account="a", qos="q", constraint="v100", gpus=1, cpus=3, memory="2.5 GB",
        hours=1.5, parallel=7, signal_seconds=60, sbatch={"exclude": "n7"}, srun=("--mpi=none",),
        setup=("module load x",),
    )  # fmt: skip
    finish([alone()], tmp_path, slurm, how)
    _, given = slurm.submissions[0]
    wanted = {
        "partition": "main", "account": "a", "qos": "q", "constraint": "v100", "gpus_per_node": 1,
        "cpus_per_task": 3, "mem": "2560MB", "time": 90, "array_parallelism": 7,
        "signal_delay_s": 60, "nodes": 1, "ntasks_per_node": 1,
    }  # fmt: skip
    assert given.items() >= wanted.items()
    assert given["additional_parameters"] == {"exclude": "n7", "requeue": True}
    assert given["srun_args"][-1] == "--mpi=none"
    assert given["setup"][0] == "module load x"


def test_overrides_make_arrays_of_their_own(slurm: FakeSlurm, tmp_path: Path) -> None:
    runs = [*school(), taught(alone(student="r8w4"), "semckd")]
    how = executor(hours=1, overrides=({"method": "semckd", "student": "r8*", "hours": 8},))
    finish(runs, tmp_path, slurm, how)
    hours = {
        parameters["time"]: {i for element in s.elements for c in element for i in c}
        for s, parameters in slurm.submissions
    }
    assert hours[480] == {runs[-1].id}


def test_a_partition_without_gpus_gets_none_asked(slurm: FakeSlurm, tmp_path: Path) -> None:
    finish([alone()], tmp_path / "a", slurm, executor(partition="low"))
    finish([alone()], tmp_path / "b", slurm, executor(partition="main"))
    assert [p.get("gpus_per_node") for _, p in slurm.submissions] == [None, 1]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            {"partition": "maain"},
            "executor.slurm.partition: maain: .* main, low .did you mean main",
        ),
        ({"gpus": 3}, "executor.slurm.gpus: 3 for one node; .*main has 2"),
        ({"cpus": 9}, "executor.slurm.cpus: 9 for one node; .*main has 8"),
        ({"memory": "17 GB"}, "executor.slurm.memory: 17408 MB .* has 16000 MB"),
        ({"partition": "low", "gpus": 1}, "low has 0"),
    ],
)
def test_what_no_node_has_is_refused_before_anything_is_submitted(
    slurm: FakeSlurm, tmp_path: Path, values: dict[str, Any], line: str
) -> None:
    with pytest.raises(JobError, match=line):
        finish([alone()], tmp_path, slurm, executor(**values))
    assert slurm.submissions == []


def test_several_cohorts_share_a_gpu(slurm: FakeSlurm, tmp_path: Path) -> None:
    runs = [alone(seed) for seed in range(5)]
    finish(runs, tmp_path, slurm, executor(jobs_per_gpu=2, gpus=1))
    shapes = [(len(s.elements), p["ntasks_per_node"]) for s, p in slurm.submissions]
    assert shapes == [(2, 2), (1, 1)]
    assert {p["gpus_per_node"] for _, p in slurm.submissions} == {1}


def test_cohorts_are_as_large_as_memory_allows(slurm: FakeSlurm, tmp_path: Path) -> None:
    teacher = alone(student="r8w4")
    records.write_run(tmp_path, teacher)
    records.write(tmp_path, Record(teacher.id, "done"))
    runs = [taught(teacher, name) for name in ("kd", "at", "sp", "semckd")]
    finish(runs, tmp_path, slurm, executor(memory="8 GB"))
    finish(runs2 := [taught(teacher, n, seed=1) for n in ("kd", "at", "sp", "semckd")],
           tmp_path, slurm, executor(memory="100 MB"))  # fmt: skip
    sizes = [[len(c) for e in s.elements for c in e] for s, _ in slurm.submissions]
    assert sizes == [[4], [1, 1, 1, 1]]
    assert work.missing(runs2, tmp_path) == []


# --- losses ---


@pytest.mark.parametrize(
    "state", ["NODE_FAIL", "PREEMPTED", "TIMEOUT", "CANCELLED", "OUT_OF_MEMORY"]
)
def test_a_loss_is_submitted_again_and_told_in_the_record(
    slurm: FakeSlurm, tmp_path: Path, state: str
) -> None:
    runs = school()
    slurm.on_start = once(state, runs[1].id)
    events = finish(runs, tmp_path, slurm)
    assert work.missing(runs, tmp_path) == []
    again = [s for s, _ in slurm.submissions if runs[1].id in s.attempts]
    assert [s.attempts[runs[1].id] for s in again] == [1]
    (line,) = attempts.read(tmp_path, runs[1].id)
    assert state in line
    assert state in said(events)


def test_completed_without_a_record_is_a_loss(slurm: FakeSlurm, tmp_path: Path) -> None:
    run = alone()

    def on_start(name: str, job: Job) -> str | None:
        if name == "100":
            job.listed, job.said = None, DONE
            return "RUNNING"
        return DONE

    slurm.on_start = on_start
    finish([run], tmp_path, slurm)
    assert len(slurm.submissions) == 2
    assert DONE in attempts.read(tmp_path, run.id)[0]


def test_an_element_that_vanished_is_submitted_again(slurm: FakeSlurm, tmp_path: Path) -> None:
    """Cancelled while it waited, it is in neither squeue nor sacct."""
    runs = [alone(seed) for seed in range(3)]

    def on_start(name: str, job: Job) -> str | None:
        if name == "100_1":
            job.listed = job.said = None
            return "gone"
        return DONE

    slurm.on_start = on_start
    finish(runs, tmp_path, slurm)
    assert work.missing(runs, tmp_path) == []
    assert [len(s.elements) for s, _ in slurm.submissions] == [3, 1]


def test_a_requeued_job_is_not_submitted_twice(slurm: FakeSlurm, tmp_path: Path) -> None:
    run = alone()
    seen = []

    def on_start(name: str, job: Job) -> str | None:
        seen.append(name)
        if len(seen) == 1:
            job.reason, job.said = "BeginTime", "NODE_FAIL"
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
    finish([run], tmp_path, slurm)
    assert len(slurm.submissions) == 1
    assert seen == ["100", "100"]


def test_retries_end_in_a_failed_record_with_its_history(slurm: FakeSlurm, tmp_path: Path) -> None:
    runs = school(1)
    slurm.on_start = lambda name, job: (
        "NODE_FAIL" if runs[1].id in job.submission.ids(job.index) else DONE
    )
    finish(runs, tmp_path, slurm, executor(retries=2))
    record = records.read(tmp_path, runs[1].id)
    assert record is not None
    assert record.status == "failed"
    assert "lost 3 times without progress" in record.reason
    assert len(histories(tmp_path, runs[1].id)) == 3
    assert records.load(tmp_path, [runs[2].id])[runs[2].id].status == "done"


def test_a_job_that_keeps_crashing_says_so(slurm: FakeSlurm, tmp_path: Path) -> None:
    runs = school(1)

    def crash(name: str, job: Job) -> str:
        if runs[1].id not in job.submission.ids(job.index):
            return DONE
        job.code = "0:11"
        return "FAILED"

    slurm.on_start = crash
    finish(runs, tmp_path, slurm, executor(retries=1))
    record = records.read(tmp_path, runs[1].id)
    assert record is not None
    assert "signal 11: crash in native code (torch), not in the method" in record.reason
    assert "; network: r8w3; try another version of torch" in record.reason


def test_losses_with_progress_in_between_do_not_count(slurm: FakeSlurm, tmp_path: Path) -> None:
    run = alone()
    tries = []

    def on_start(name: str, job: Job) -> str | None:
        tries.append(name)
        if len(tries) > 6:
            return DONE
        (tmp_path / run.id / "checkpoint.pt").write_text(name)
        os.utime(tmp_path / run.id / "checkpoint.pt", (len(tries), len(tries)))
        return "PREEMPTED"

    slurm.on_start = on_start
    finish([run], tmp_path, slurm, executor(retries=1))
    record = records.read(tmp_path, run.id)
    assert record is not None
    assert (record.status, len(tries)) == ("done", 7)


def test_students_of_a_failed_teacher_are_left_alone(slurm: FakeSlurm, tmp_path: Path) -> None:
    runs = school(1)

    def on_start(name: str, job: Job) -> str | None:
        if runs[0].id in job.submission.ids(job.index):
            records.write(tmp_path, Record(runs[0].id, "failed", "no luck"))
            return "FAILED"
        return DONE

    slurm.on_start = on_start
    events = finish(runs, tmp_path, slurm)
    assert [records.read(tmp_path, run.id) is None for run in runs] == [False, False, True]
    assert events[-1].left == 1


def test_an_orphan_is_cancelled_and_its_run_submitted_again(
    slurm: FakeSlurm, tmp_path: Path
) -> None:
    """The teacher's job was lost: whoever waited for it waits for the next one."""
    runs = school(1)
    slurm.on_start = once("NODE_FAIL", runs[0].id)
    finish(runs, tmp_path, slurm)
    assert work.missing(runs, tmp_path) == []


# --- when Slurm is in trouble ---


def test_no_answer_says_nothing_about_jobs(slurm: FakeSlurm, tmp_path: Path) -> None:
    slurm.seconds = 900.0
    began: list[float] = []

    def away() -> str | None:
        began.append(slurm.clock.now)
        return "connection refused" if 50 < slurm.clock.now - began[0] < 700 else None

    slurm.faults["squeue"] = away
    events = finish(school(), tmp_path, slurm)
    assert len(slurm.submissions) == 2
    assert "does not answer, jobs continue: squeue: connection refused" in said(events)
    assert "answers again" in said(events)


AWAY = "Unable to contact slurm controller (connect failure)"


def test_a_controller_that_is_away_is_no_loss(slurm: FakeSlurm, tmp_path: Path) -> None:
    """As when slurmctld is started again: all commands fail, at any time, and so does sbatch."""
    slurm.seconds = 100.0
    for name in ("squeue", "sinfo", "scontrol", "scancel"):
        slurm.faults[name] = lambda: f"slurm_load_jobs error: {AWAY}" if away() else None
    slurm.faults["sbatch"] = lambda: f"sbatch: error: {AWAY}" if away() else None

    def away() -> bool:
        return slurm.clock.now % 90 < 45

    runs = school()
    events = finish(runs, tmp_path, slurm)
    assert work.missing(runs, tmp_path) == []
    assert len(slurm.submissions) == 2 and slurm.cancelled == []
    assert all(attempts.read(tmp_path, run.id) == () for run in runs)
    assert f"does not answer, jobs continue: squeue: slurm_load_jobs error: {AWAY}" in said(events)


def test_what_a_failed_command_said_is_the_error() -> None:
    says = f"echo 'slurm_load_jobs error: {AWAY}' >&2; exit 1"
    with pytest.raises(SchedulerError, match=r"^sh: slurm_load_jobs error: .*\(connect failure\)$"):
        run_command(["sh", "-c", says], 5)


def test_cancel_without_an_answer_says_so(slurm: FakeSlurm, tmp_path: Path) -> None:
    slurm.on_start = lambda name, job: None
    runs = [alone()]
    list(make(runs, tmp_path, slurm).submit_all())
    slurm.faults["scancel"] = lambda: f"scancel: error: {AWAY}"
    with pytest.raises(
        UserError, match=r"^Slurm does not answer, jobs may continue; try again: scanc"
    ):
        cancel(runs, tmp_path, slurm.scheduler())
    assert [job.listed for job in slurm.jobs.values()] != [None]


def test_without_accounting_losses_are_still_found(slurm: FakeSlurm, tmp_path: Path) -> None:
    run = alone()
    slurm.on_start = once("NODE_FAIL")
    slurm.faults["sacct"] = lambda: "slurmdbd is away"
    finish([run], tmp_path, slurm)
    assert len(slurm.submissions) == 2
    assert "sacct has no entry" in attempts.read(tmp_path, run.id)[0]


def test_a_job_that_slurm_lost_sight_of_is_left_to_train(slurm: FakeSlurm, tmp_path: Path) -> None:
    run = alone()
    holder = Owner("elsewhere", "", 1, "1", job="100")
    held: list[Any] = []

    def on_start(name: str, job: Job) -> str | None:
        if name == "100":
            held.append(lease.acquire(tmp_path / run.id, holder))
            job.listed, job.said = None, "RUNNING"
            return "RUNNING"
        return DONE

    slurm.on_start = on_start
    events = make([run], tmp_path, slurm).events()
    for _ in events:
        if slurm.clock.now > 2000:
            break
    assert len(slurm.submissions) == 1
    held[0].release()
    list(events)
    assert len(slurm.submissions) == 2


def test_an_sbatch_without_an_answer_is_looked_up_not_repeated(
    slurm: FakeSlurm, tmp_path: Path
) -> None:
    answers = iter(["after: sbatch: error: Socket timed out on send/recv operation"])
    slurm.faults["sbatch"] = lambda: next(answers, None)
    slurm.on_start = lambda name, job: None if name == "100" else DONE  # it has no pickle
    run = alone()
    events = finish([run], tmp_path, slurm)
    assert slurm.cancelled == ["100"]
    assert len(slurm.submissions) == 2
    assert "Socket timed out" in said(events)
    assert attempts.read(tmp_path, run.id) == ()


def test_an_sbatch_that_failed_is_tried_again(slurm: FakeSlurm, tmp_path: Path) -> None:
    answers = iter([f"sbatch: error: {AWAY}"] * 3)
    slurm.faults["sbatch"] = lambda: next(answers, None)
    run = alone()
    finish([run], tmp_path, slurm)
    assert work.missing([run], tmp_path) == []
    assert slurm.cancelled == []


def test_a_runner_killed_before_sbatch_answered(slurm: FakeSlurm, tmp_path: Path) -> None:
    """What it left is looked up by its name; the job that is there is made again."""
    run = alone()
    slurm.faults["sbatch"] = lambda: "after: killed"
    slurm.on_start = lambda name, job: None if name == "100" else DONE
    first = make([run], tmp_path, slurm)
    with pytest.raises(JobError, match="not all runs were submitted"):
        list(first.submit_all())
    del slurm.faults["sbatch"]
    finish([run], tmp_path, slurm)
    assert work.missing([run], tmp_path) == []
    assert {j.listed for j in slurm.jobs.values()} == {None}


@pytest.mark.parametrize(
    "told",
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
def test_a_refusal_is_one_line_in_slurms_words(slurm: FakeSlurm, tmp_path: Path, told: str) -> None:
    slurm.faults["sbatch"] = lambda: told
    with pytest.raises(JobError) as error:
        finish([alone()], tmp_path, slurm)
    assert str(error.value) == f"executor.slurm: {told}"
    assert submissions.unfinished(tmp_path) == []


def test_too_many_jobs_are_submitted_later(slurm: FakeSlurm, tmp_path: Path) -> None:
    runs = [alone(seed) for seed in range(6)]

    def limit() -> str | None:
        waiting = sum(job.listed is not None for job in slurm.jobs.values())
        told = (
            "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
        )
        return f"sbatch: error: Batch job submission failed: {told}" if waiting else None

    slurm.faults["sbatch"] = limit
    finish(runs, tmp_path, slurm, executor(chunk=2))
    assert work.missing(runs, tmp_path) == []


def test_a_job_that_would_wait_for_ever_is_one_line(
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
        finish([alone()], tmp_path, slurm)
    assert slurm.cancelled == ["100"]


@pytest.mark.parametrize("held", ["launch failed requeued held", "launch_failed_requeued_held"])
def test_a_job_that_slurm_holds_after_a_failed_launch_is_submitted_again(
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
    finish([run], tmp_path, slurm)
    assert slurm.cancelled == ["100"]
    assert len(slurm.submissions) == 2
    assert work.missing([run], tmp_path) == []
    assert [line for line in attempts.read(tmp_path, run.id) if f"held by Slurm: {held}" in line]


def test_a_job_that_ends_nowhere_is_cancelled_when_its_records_are_there(
    slurm: FakeSlurm, tmp_path: Path
) -> None:
    """A step's daemon died: the runs have ended, and Slurm says RUNNING till the limit."""
    runs = [alone(0), alone(1)]

    def on_start(name: str, job: Job) -> str | None:
        if name == "100_0":
            records.write(tmp_path, Record(runs[0].id, "done"))
            return None
        return DONE

    slurm.on_start, slurm.seconds = on_start, 600.0
    finish(runs, tmp_path, slurm)
    assert slurm.cancelled == ["100_0"]


# --- several runners ---


def test_a_later_runner_goes_on_from_what_lies_there(slurm: FakeSlurm, tmp_path: Path) -> None:
    runs = school()
    list(make(runs, tmp_path, slurm).submit_all())
    before = len(slurm.submissions)
    list(make(runs, tmp_path, slurm).submit_all())
    assert len(slurm.submissions) == before
    finish(runs, tmp_path, slurm)
    assert len(slurm.submissions) == before
    assert work.missing(runs, tmp_path) == []


def test_of_two_runners_one_submits(slurm: FakeSlurm, tmp_path: Path) -> None:
    runs = school()
    first, second = (make(runs, tmp_path, slurm) for _ in range(2))
    ones, others = first.events(), second.events()
    next(ones)
    before = len(slurm.submissions)
    seen = next(others)
    assert "another runner" in seen.line
    with pytest.raises(JobError, match="another runner submits here"):
        list(make(runs, tmp_path, slurm).submit_all())
    assert len(slurm.submissions) == before
    ones.close()  # type: ignore[attr-defined]
    list(others)  # takes over
    assert work.missing(runs, tmp_path) == []
    assert len(slurm.submissions) == before


def test_cancel_ends_this_grids_jobs_only(slurm: FakeSlurm, tmp_path: Path) -> None:
    slurm.on_start = lambda name, job: None
    one, other = [alone(seed) for seed in range(3)], [alone(seed) for seed in range(3, 5)]
    list(make(one, tmp_path, slurm).submit_all())
    list(make(other, tmp_path, slurm).submit_all())
    assert cancel(one, tmp_path, slurm.scheduler()) == ["100_0", "100_1", "100_2"]
    assert [job.listed for job in slurm.jobs.values()] == [None] * 3 + ["RUNNING"] * 2


# --- scale ---


def test_ten_thousand_runs_in_few_calls(slurm: FakeSlurm, tmp_path: Path) -> None:
    """Calls depend on time, not on the number of runs."""
    slurm.slots, slurm.seconds = 64, 60.0
    few, many = [alone(seed) for seed in range(600)], [alone(seed) for seed in range(600, 3000)]
    rates = []
    for runs in (few, many):
        watcher = make(runs, tmp_path / str(len(runs)), slurm)
        began = slurm.clock.now
        list(watcher.events())
        minutes = (slurm.clock.now - began) / 60
        calls = watcher.scheduler.calls
        rates.append((calls["squeue"] + calls["sacct"]) / minutes)
        assert calls["sbatch"] == -(-len(runs) // 500)
    assert max(rates) < 8
