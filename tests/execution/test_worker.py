"""Workers: each run is trained once, no work is lost, and errors have one line."""

import multiprocessing
import random
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from debug_runner import DEBUG, teacher_and_students, train_all
from fake_grids import done
from tiny_runs import alone, numbers, taught, train

from kdbench import files
from kdbench.execution import work
from kdbench.execution.work import JobError, Work
from kdbench.execution.worker import Worker
from kdbench.grid.run import Run
from kdbench.grid.settings import Dataset
from kdbench.runs import lease, records
from kdbench.runs.lease import Lease
from kdbench.runs.owner import Owner
from kdbench.runs.records import Record
from kdbench.training.cohort import Cohort
from tests.whole.test_invariants import RAISES, plugin


def test_raising_plugin_fails_and_the_other_runs_finish(tmp_path: Path) -> None:
    teacher = alone(student="r8w4")
    path = plugin(tmp_path, "raises", RAISES)
    runs = [teacher, taught(teacher, path), taught(teacher, "kd")]
    train_all(runs, tmp_path / "runs")
    written = records.load(tmp_path / "runs", (run.id for run in runs))
    assert [written[run.id].status for run in runs] == ["done", "failed", "done"]


def test_students_of_a_failed_teacher_are_blocked(tmp_path: Path) -> None:
    runs = teacher_and_students(1)
    records.write_run(tmp_path, runs[0])
    records.write(tmp_path, Record(runs[0].id, "failed", "no luck"))
    train_all(runs, tmp_path)
    assert [records.read(tmp_path, run.id) is None for run in runs] == [False, False] + [True] * 3


def test_chain_of_teachers_is_trained_in_order(tmp_path: Path) -> None:
    first = alone(student="r8w4")
    second = taught(first, "kd", student="r8w3")
    third = taught(second, "at", student="v5w4")
    runs = [first, second, third]
    train_all(runs, tmp_path)
    assert work.missing(runs, tmp_path) == []


def test_attempt_reports_waiting_trained_and_ended_cohorts(tmp_path: Path) -> None:
    teacher = alone(student="r8w4")
    student = taught(teacher, "kd")
    cohorts = ((teacher,), (student,))
    task = Work(cohorts, tmp_path, Path("data"), DEBUG)
    worker = Worker(task, 0, lambda: False, lambda beats, line: None)
    assert worker.attempt((student,)) == "waiting"  # for its teacher
    records.write_run(tmp_path, teacher)
    other = lease.acquire(records.folder(tmp_path, teacher.id), Owner.me())
    assert other is not None
    assert worker.attempt((teacher,)) == "waiting"  # for the holder of its lease
    other.release()
    assert [worker.attempt(cohort) for cohort in cohorts] == ["trained", "trained"]
    assert [worker.attempt(cohort) for cohort in cohorts] == ["ended", "ended"]


def test_missing_data_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDBENCH_DOWNLOAD", "0")
    run = alone(dataset=Dataset(name="cifar100"))
    task = Work(((run,),), tmp_path / "runs", tmp_path / "data", DEBUG)
    with pytest.raises(JobError, match=r"cifar-100-python\.tar\.gz") as error:
        Worker(task, 0, lambda: False, lambda beats, line: None).run()
    assert "\n" not in str(error.value)
    assert records.read(tmp_path / "runs", run.id) is None


def test_full_disk_is_reported_in_one_line_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = alone()
    train([run], tmp_path / "expected")
    original = files.write_atomically
    calls = [0]

    def fails_later(path: Path, content: str | bytes, **options: Any) -> None:
        calls[0] += 1
        if calls[0] > 8:
            raise OSError(28, "No space left on device", str(path))
        original(path, content, **options)

    monkeypatch.setattr(records, "write_atomically", fails_later)
    monkeypatch.setattr("kdbench.training.checkpoint.write_atomically", fails_later)
    often = DEBUG.model_copy(update={"checkpoint_seconds": 0.0})
    with pytest.raises(JobError, match=r"disk full; checkpoints and records so far are intact"):
        train_all([run], tmp_path / "runs", often)
    assert records.read(tmp_path / "runs", run.id) is None
    monkeypatch.undo()
    train_all([run], tmp_path / "runs")
    assert numbers(tmp_path / "expected", run) == numbers(tmp_path / "runs", run)


# --- kills and several workers -------------------------------------------------------------------


def _train_until(runs: list[Run], folder: Path, steps: int | None, seconds: float) -> None:
    """Train, but die ``seconds`` after a number of steps; None: train to the end."""
    torch.set_num_threads(1)
    original = Cohort._between_steps
    left = [steps]

    def between_steps(self: Cohort, *args: Any) -> None:
        original(self, *args)
        left[0] = None if left[0] is None else left[0] - 1
        if left[0] == 0:
            signal.setitimer(signal.ITIMER_REAL, seconds)

    Cohort._between_steps = between_steps  # type: ignore[method-assign, assignment]
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process at once, as SIGKILL does
    if steps == 0:
        signal.setitimer(signal.ITIMER_REAL, seconds)
    train_all(runs, folder, DEBUG.model_copy(update={"checkpoint_seconds": 0.0}))


def test_kills_at_random_moments_change_no_bit(tmp_path: Path) -> None:
    """Compare runs with up to twelve seeded kills to the same runs without.

    The moments are counted in steps, of which the runs have 36, so that a fast machine survives as
    many kills as a slow one.
    """
    runs = teacher_and_students(1)
    fork = multiprocessing.get_context("fork")  # torch is imported already
    rng = random.Random(7)
    kills = 0
    while work.missing(runs, tmp_path / "killed"):
        steps = rng.randint(0, 4) if kills < 12 else None
        when = steps, rng.uniform(0.0005, 0.005)
        child = fork.Process(target=_train_until, args=(runs, tmp_path / "killed", *when))
        child.start()
        child.join()
        assert child.exitcode in (0, -signal.SIGALRM)
        kills += child.exitcode != 0
    assert kills >= 6
    train_all(runs, tmp_path / "expected")
    for run in runs:
        assert numbers(tmp_path / "expected", run) == numbers(tmp_path / "killed", run)
    assert not list((tmp_path / "killed").glob("*/checkpoint.previous.pt"))


def test_two_workers_train_each_run_once(tmp_path: Path) -> None:
    runs = teacher_and_students(2)
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_note_runs, args=(runs, tmp_path, i)) for i in range(2)]
    for process in workers:
        process.start()
    for process in workers:
        process.join()
    assert [process.exitcode for process in workers] == [0, 0]
    trained = [path.read_text().split() for path in tmp_path.glob("trained-*")]
    assert Counter(i for part in trained for i in part) == Counter(run.id for run in runs)


def _note_runs(runs: list[Run], folder: Path, number: int) -> None:
    """Train, and write down which runs this process trained."""
    torch.set_num_threads(1)
    original = Cohort._start
    trained: list[str] = []

    def start(self: Cohort, run: Run, *args: Any) -> None:
        trained.append(run.id)
        original(self, run, *args)

    Cohort._start = start  # type: ignore[method-assign, assignment]
    train_all(runs, folder)
    (folder / f"trained-{number}").write_text(" ".join(trained))


def test_run_that_ends_while_its_lease_is_taken_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = alone()
    original = lease.acquire

    def acquire(folder: Path, owner: Owner) -> Lease | None:
        # Another runner writes the record at this very moment.
        records.write_run(tmp_path, run)
        records.write(tmp_path, done(run.id))
        return original(folder, owner)

    monkeypatch.setattr(lease, "acquire", acquire)
    monkeypatch.setattr(Cohort, "train", lambda self: pytest.fail("trained twice"))
    train_all([run], tmp_path)
