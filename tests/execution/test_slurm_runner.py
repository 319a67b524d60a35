"""The runner on a fake Slurm: submissions, resources, several runners, number of calls."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fake_grids import done, make_record
from fake_slurm import (
    FakeSlurm,
    make_runner,
    run_to_end,
    slurm,
    slurm_executor,
    teacher_and_students,
)
from tiny_runs import alone, taught

from kdbench.execution import work
from kdbench.execution.slurm.jobs_of_grid import cancel
from kdbench.execution.work import JobError
from kdbench.runs import records
from kdbench.runs.data_digests import MadeOf

__all__ = ["slurm"]


def test_teachers_are_submitted_first_and_their_students_wait(
    slurm: FakeSlurm, tmp_path: Path
) -> None:
    runs = teacher_and_students()
    events = run_to_end(runs, tmp_path, slurm)
    assert work.missing(runs, tmp_path) == []
    assert Counter(run.id for event in events for run, _ in event.ended) == Counter(
        run.id for run in runs
    )
    options = [parameters["additional_parameters"] for _, parameters in slurm.submissions]
    dependencies = [option.get("dependency") for option in options]
    teacher = next(k for k, j in slurm.jobs.items() if runs[0].id in j.submission.ids(j.index))
    assert dependencies.count(f"afterok:{teacher}") == len(list(filter(None, dependencies))) > 0
    assert all(o["kill-on-invalid-dep"] == "yes" for o in options if o.get("dependency"))
    assert run_to_end(runs, tmp_path, slurm) == []


def test_chain_of_teachers_is_submitted_at_once(slurm: FakeSlurm, tmp_path: Path) -> None:
    first = alone(student="r8w4")
    second = taught(first, "kd", student="r8w3")
    third = taught(second, "at", student="v5w4")
    for event in make_runner([first, second, third], tmp_path, slurm).submit_all():
        assert event.line == "3 runs submitted"
    options = [parameters["additional_parameters"] for _, parameters in slurm.submissions]
    assert [option.get("dependency") for option in options] == [None, "afterok:100", "afterok:101"]


def test_submission_says_what_recorded_runs_were_made_of(slurm: FakeSlurm, tmp_path: Path) -> None:
    done, todo = alone(), alone(1)
    record = make_record(done, 80.0)
    records.folder(tmp_path, done.id).mkdir()
    records.write(tmp_path, record)
    list(make_runner([done, todo], tmp_path, slurm).submit_all())
    [(submission, _)] = slurm.submissions
    assert record.result
    made_of = {done.dataset: MadeOf(record.result.data, (done.id,), 1)}
    assert submission.recorded_data() == made_of


def test_job_names_are_unique(slurm: FakeSlurm, tmp_path: Path) -> None:
    run_to_end(teacher_and_students(), tmp_path, slurm)
    names = [submission.name for submission, _ in slurm.submissions]
    assert len(set(names)) == len(names)
    assert all(name.startswith("kdb-g-") for name in names)
    assert [p["job_name"] for _, p in slurm.submissions] == names


def test_arrays_stay_below_the_limit_of_the_cluster(slurm: FakeSlurm, tmp_path: Path) -> None:
    slurm.max_array = 8
    runs = [alone(seed) for seed in range(20)]
    run_to_end(runs, tmp_path, slurm)
    assert sorted(len(s.elements) for s, _ in slurm.submissions) == [6, 7, 7]
    assert work.missing(runs, tmp_path) == []


def test_resources_reach_sbatch(slurm: FakeSlurm, tmp_path: Path) -> None:
    requested = slurm_executor(
        partition="main", account="a", qos="q", constraint="v100", gpus=1, cpus=3, memory="2.5 GB",
        hours=1.5, parallel=7, signal_seconds=60, sbatch={"exclude": "n7"}, srun=("--mpi=none",),
        setup=("module load x",),
    )  # fmt: skip
    run_to_end([alone()], tmp_path, slurm, requested)
    _, parameters = slurm.submissions[0]
    expected = {
        "partition": "main", "account": "a", "qos": "q", "constraint": "v100", "gpus_per_node": 1,
        "cpus_per_task": 3, "mem": "2560MB", "time": 90, "array_parallelism": 7,
        "signal_delay_s": 60, "nodes": 1, "ntasks_per_node": 1,
    }  # fmt: skip
    assert parameters.items() >= expected.items()
    assert parameters["additional_parameters"] == {"exclude": "n7", "requeue": True}
    assert parameters["srun_args"][-1] == "--mpi=none"
    assert parameters["setup"][0] == "module load x"


def test_overrides_make_separate_arrays(slurm: FakeSlurm, tmp_path: Path) -> None:
    runs = [*teacher_and_students(), taught(alone(student="r8w4"), "semckd")]
    overrides = ({"method": "semckd", "student": "r8*", "hours": 8},)
    run_to_end(runs, tmp_path, slurm, slurm_executor(hours=1, overrides=overrides))
    hours = {
        parameters["time"]: {i for element in s.elements for c in element for i in c}
        for s, parameters in slurm.submissions
    }
    assert hours[480] == {runs[-1].id}


def test_no_gpus_are_requested_on_a_partition_without_gpus(
    slurm: FakeSlurm, tmp_path: Path
) -> None:
    run_to_end([alone()], tmp_path / "a", slurm, slurm_executor(partition="low"))
    run_to_end([alone()], tmp_path / "b", slurm, slurm_executor(partition="main"))
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
def test_resources_that_no_node_has_are_refused_before_submission(
    slurm: FakeSlurm, tmp_path: Path, values: dict[str, Any], line: str
) -> None:
    with pytest.raises(JobError, match=line):
        run_to_end([alone()], tmp_path, slurm, slurm_executor(**values))
    assert slurm.submissions == []


def test_several_cohorts_share_a_gpu(slurm: FakeSlurm, tmp_path: Path) -> None:
    runs = [alone(seed) for seed in range(5)]
    run_to_end(runs, tmp_path, slurm, slurm_executor(jobs_per_gpu=2, gpus=1))
    shapes = [(len(s.elements), p["ntasks_per_node"]) for s, p in slurm.submissions]
    assert shapes == [(2, 2), (1, 1)]
    assert {p["gpus_per_node"] for _, p in slurm.submissions} == {1}


def test_cohorts_are_as_large_as_memory_allows(slurm: FakeSlurm, tmp_path: Path) -> None:
    teacher = alone(student="r8w4")
    records.write_run(tmp_path, teacher)
    records.write(tmp_path, done(teacher.id))
    runs = [taught(teacher, name) for name in ("kd", "at", "sp", "semckd")]
    run_to_end(runs, tmp_path, slurm, slurm_executor(memory="8 GB"))
    run_to_end(runs2 := [taught(teacher, n, seed=1) for n in ("kd", "at", "sp", "semckd")],
           tmp_path, slurm, slurm_executor(memory="100 MB"))  # fmt: skip
    sizes = [[len(c) for e in s.elements for c in e] for s, _ in slurm.submissions]
    assert sizes == [[4], [1, 1, 1, 1]]
    assert work.missing(runs2, tmp_path) == []


def test_later_runner_continues_from_earlier_submissions(slurm: FakeSlurm, tmp_path: Path) -> None:
    runs = teacher_and_students()
    list(make_runner(runs, tmp_path, slurm).submit_all())
    before = len(slurm.submissions)
    list(make_runner(runs, tmp_path, slurm).submit_all())
    assert len(slurm.submissions) == before
    run_to_end(runs, tmp_path, slurm)
    assert len(slurm.submissions) == before
    assert work.missing(runs, tmp_path) == []


def test_only_one_of_two_runners_submits(slurm: FakeSlurm, tmp_path: Path) -> None:
    runs = teacher_and_students()
    first, second = (make_runner(runs, tmp_path, slurm).events() for _ in range(2))
    next(first)
    before = len(slurm.submissions)
    assert "another runner" in next(second).line
    with pytest.raises(JobError, match="another runner submits here"):
        list(make_runner(runs, tmp_path, slurm).submit_all())
    assert len(slurm.submissions) == before
    first.close()  # type: ignore[attr-defined]
    list(second)  # takes over
    assert work.missing(runs, tmp_path) == []
    assert len(slurm.submissions) == before


def test_cancel_affects_only_the_jobs_of_its_grid(slurm: FakeSlurm, tmp_path: Path) -> None:
    slurm.on_start = lambda name, job: None
    grid, other = [alone(seed) for seed in range(3)], [alone(seed) for seed in range(3, 5)]
    list(make_runner(grid, tmp_path, slurm).submit_all())
    list(make_runner(other, tmp_path, slurm).submit_all())
    assert cancel(grid, tmp_path, slurm.scheduler()) == ["100_0", "100_1", "100_2"]
    assert [job.listed for job in slurm.jobs.values()] == [None] * 3 + ["RUNNING"] * 2


def test_number_of_calls_depends_on_time_not_on_runs(slurm: FakeSlurm, tmp_path: Path) -> None:
    slurm.slots, slurm.seconds = 64, 60.0
    few, many = [alone(seed) for seed in range(600)], [alone(seed) for seed in range(600, 3000)]
    rates = []
    for runs in (few, many):
        watcher = make_runner(runs, tmp_path / str(len(runs)), slurm)
        began = slurm.clock.now
        list(watcher.events())
        minutes = (slurm.clock.now - began) / 60
        calls = watcher.scheduler.calls
        rates.append((calls["squeue"] + calls["sacct"]) / minutes)
        assert calls["sbatch"] == -(-len(runs) // 500)
    assert max(rates) < 8
