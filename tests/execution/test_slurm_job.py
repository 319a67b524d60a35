"""A job on its node, without Slurm: exit codes and files."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from debug_runner import DEBUG, teacher_and_students
from tiny_runs import alone, taught, train

from kdbench.execution import crashes, work
from kdbench.execution.slurm import code_snapshot, job, submissions
from kdbench.execution.slurm.array_element import Element
from kdbench.execution.slurm.stop_signals import StopSignals
from kdbench.execution.slurm.submissions import Submission
from kdbench.grid.run import Run
from kdbench.grid.settings import Dataset
from kdbench.runs import attempts, records
from kdbench.runs.data_digests import MadeOf
from tests.whole.test_invariants import RAISES, plugin


def submitted(
    tmp_path: Path, runs: list[Run], made_of: dict[Dataset, MadeOf] | None = None
) -> Submission:
    """Write a submission of one element and one cohort, as the runner on Slurm does."""
    submission = Submission(
        name="kdb-tiny-0",
        grid="tiny",
        runs=str(tmp_path / "runs"),
        data=str(tmp_path / "data"),
        code=str(tmp_path / "code"),
        executor=DEBUG.model_dump(mode="json"),
        elements=((tuple(run.id for run in runs),),),
        attempts={},
        made_of=submissions.as_json(made_of or {}),
    )
    submissions.write(submission, {run.id: run for run in runs})
    return submission


def in_another_process(tmp_path: Path, submission: Submission) -> subprocess.CompletedProcess[str]:
    """Call a submission's first element as submitit does on the node."""
    (tmp_path / "element.pickle").write_bytes(pickle.dumps(Element(str(submission.folder), 0)))
    code = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb'))()"
    return subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "element.pickle")],
        env=os.environ | {"PYTHONPATH": str(Path(job.__file__).parents[3])},
        capture_output=True,
        text=True,
        check=False,
    )


def test_pickled_element_trains_its_runs_in_another_process(tmp_path: Path) -> None:
    cohort = teacher_and_students(1)[:2]
    submission = submitted(tmp_path, cohort)
    done = in_another_process(tmp_path, submission)
    assert done.returncode == 0, done.stderr
    assert work.missing(cohort, tmp_path / "runs") == []
    assert len(list(submission.folder.glob("ended-*-0"))) == 1


def test_exit_code_is_1_if_a_run_cannot_be_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "WAIT_SECONDS", 0.0)
    student = taught(alone(student="r8w4"), "kd")
    assert job.train(submitted(tmp_path, [student]).folder, 0, StopSignals()) == 1
    assert work.missing([student], tmp_path / "runs") == [student]


def test_missing_data_is_left_in_the_elements_error_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDBENCH_DOWNLOAD", "0")
    submission = submitted(tmp_path, [alone(dataset=Dataset(name="cifar100"))])
    assert job.train(submission.folder, 0, StopSignals()) == 2
    assert "cifar-100-python.tar.gz" in (submission.folder / "0.error").read_text()


def test_signal_before_the_first_step_is_noted_and_not_requeued(tmp_path: Path) -> None:
    run = alone()
    submission = submitted(tmp_path, [run])
    signals = StopSignals()
    signals.stop = signals.requeue = True
    assert job.train(submission.folder, 0, signals) == 143
    (line,) = attempts.read(tmp_path / "runs", run.id)
    assert "stopped by USR2" in line
    assert records.read(tmp_path / "runs", run.id) is None
    assert not list(submission.folder.glob("stopped-*"))
    assert len(list(submission.folder.glob("ended-*-0"))) == 1


def test_lost_gpu_ends_the_process_with_its_own_code_and_writes_no_record(tmp_path: Path) -> None:
    lost = 'from kdbench.training.device import DeviceLost\n            raise DeviceLost("gone")'
    text = RAISES.replace('raise RuntimeError("a bug in step 5")', lost)
    teacher = alone(student="r8w4")
    train([teacher], tmp_path / "runs")
    cohort = [taught(teacher, plugin(tmp_path, "deadly", text)), taught(teacher, "kd")]
    submission = submitted(tmp_path, cohort)
    code_snapshot.take(tmp_path / "runs", cohort).rename(tmp_path / "code")
    done = in_another_process(tmp_path, submission)
    assert done.returncode == crashes.DEVICE_LOST, done.stderr
    assert "kdbench: the GPU refuses all further work of this process: gone" in done.stderr
    assert "Traceback" not in done.stderr
    assert work.missing(cohort, tmp_path / "runs") == cohort


def test_job_does_not_train_on_other_images_than_recorded_runs(tmp_path: Path) -> None:
    run = alone()
    made_of = {run.dataset: MadeOf("e" * 64, ("r1", "r2"), 2)}
    submission = submitted(tmp_path, [run], made_of)
    assert submissions.read(submission.folder).recorded_data() == made_of
    assert job.train(submission.folder, 0, StopSignals()) == 2
    text = (submission.folder / "0.error").read_text()
    assert "2 runs on digits, 7 per class (r1, r2) were made of other images" in text
    assert not records.has_record(tmp_path / "runs", run.id)
