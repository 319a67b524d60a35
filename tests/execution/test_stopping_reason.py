"""Mistakes of users end a worker, or a job, in one line; defects keep their traceback."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from debug_runner import DEBUG, teacher_and_students, train_all
from small_grids import kdbench, write

from kdbench.data.readers.base import DataError
from kdbench.execution import local, pool, work
from kdbench.execution.slurm import job
from kdbench.execution.slurm.stop_signals import StopSignals
from kdbench.execution.stopping_reason import stopping_reason
from kdbench.execution.work import JobError
from kdbench.grid.expand import expand
from kdbench.grid.parsing import load
from kdbench.runs import attempts, records
from kdbench.runs.records import RecordError
from tests.execution.test_slurm_job import submitted


def out_of_memory() -> None:
    torch.empty(2**60)


def no_such_file() -> None:
    Path("/none/x").read_bytes()


@pytest.mark.parametrize(
    ("action", "start"), [(out_of_memory, "out of memory"), (no_such_file, "/none/x: No such file")]
)
def test_cause_outside_kdbench_has_a_line(action: Callable[[], None], start: str) -> None:
    with pytest.raises((OSError, RuntimeError)) as error:
        action()
    assert (stopping_reason(error.value) or "").startswith(start)


def test_only_defects_have_no_line() -> None:
    for mistake in (RecordError("x: why"), DataError("x: why"), JobError("x: why")):
        assert stopping_reason(mistake) == "x: why"
    for defect in (KeyError("x"), AssertionError(), RuntimeError("shape"), KeyboardInterrupt()):
        assert stopping_reason(defect) is None


def test_damaged_record_of_a_teacher_ends_the_command_in_lines(tmp_path: Path) -> None:
    grid = write(tmp_path, executor={"kind": "local", "device": "cpu", "workers": 1})
    runs = expand(load(grid)).runs
    train_all([run for run in runs if run.teacher is None], tmp_path / "runs")
    teacher = next(run.teacher.run for run in runs if run.teacher)
    path = tmp_path / "runs" / teacher / "record.json"
    path.write_bytes(path.read_bytes().replace(b'"done"', b'"dome"'))
    folders = [f"--{name}={tmp_path / name}" for name in ("runs", "results")]
    line = [sys.executable, "-m", "kdbench", "run", "--grid", str(grid), *folders]
    root = str(Path(local.__file__).parents[2])
    done = subprocess.run(
        line, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": root}
    )
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert all(text.startswith("kdbench: ") for text in lines), done.stderr
    assert any(str(path) in text for text in lines)


def test_damaged_record_of_a_teacher_ends_a_job_with_its_error_file(tmp_path: Path) -> None:
    runs = teacher_and_students(1)
    train_all(runs[:1], tmp_path / "runs")
    path = tmp_path / "runs" / runs[0].id / "record.json"
    path.write_text("{")
    submission = submitted(tmp_path, [run for run in runs if run.teacher])
    assert job.train(submission.folder, 0, StopSignals()) == 2
    assert (submission.folder / "0.error").read_text().startswith(f"{path}: not a record: ")
    (submission.folder / "submission.json").write_text("[]")
    assert job.train(submission.folder, 0, StopSignals()) == 2
    assert "submission.json: not a submission: " in (submission.folder / "0.error").read_text()


def test_undecodable_log_of_attempts_ends_no_run(tmp_path: Path) -> None:
    [run] = teacher_and_students(1)[:1]
    attempts.note(tmp_path, run.id, "job 7: lost \ud83c")
    with (tmp_path / run.id / attempts.NAME).open("ab") as file:
        file.write(b"job 8: \xff lost\n")
    train_all([run], tmp_path)
    assert work.missing([run], tmp_path) == []
    record = records.read(tmp_path, run.id)
    assert record is not None and record.attempts[1] == "job 8: \ufffd lost"


def test_damaged_curve_ends_a_report_in_one_line(tmp_path: Path) -> None:
    grid = write(tmp_path)
    runs = expand(load(grid)).runs
    train_all(list(runs), tmp_path / "runs")
    path = tmp_path / "runs" / runs[-1].id / "history.csv"
    path.write_bytes(bytes(len(path.read_bytes())))
    flags = ("--grid", grid, "--runs", tmp_path / "runs", "--results", tmp_path / "results")
    done = kdbench("report", *flags)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"kdbench: {path}: not a learning curve: ")
    assert len(done.stderr.splitlines()) == 1
    path.unlink()
    assert kdbench("report", *flags).exit_code == 0


@pytest.mark.parametrize("mistake", [RecordError("x: why"), OSError(28, "No space left", "x")])
def test_mistake_in_a_worker_is_printed_without_traceback(
    mistake: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: object) -> None:
        raise mistake

    monkeypatch.setattr(pool, "Worker", fail)
    monkeypatch.setattr(pool.signal, "signal", lambda *args: None)
    with pytest.raises(SystemExit) as end:
        pool._run_worker(work.Work((), Path(), Path(), DEBUG), 0, os.getpid())
    assert end.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("kdbench: x: ")
