"""The runner on this machine: runs that it trains, and recovery from killed workers."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from debug_runner import teacher_and_students, train_all
from tiny_runs import TRAINING, alone, taught, train

from kdbench.execution.work import JobError
from kdbench.grid.grid import Executor
from kdbench.runs import heartbeat, records
from tests.whole.test_invariants import RAISES, plugin


def test_grid_is_trained_once_and_then_only_missing_runs(tmp_path: Path) -> None:
    runs = teacher_and_students()
    events = train_all(runs, tmp_path)
    assert Counter(run.id for event in events for run, _ in event.ended) == Counter(
        run.id for run in runs
    )
    assert all(r.status == "done" for _, r in events[-1].ended)
    before = {run.id: (tmp_path / run.id / "record.json").stat().st_mtime_ns for run in runs}
    assert train_all(runs, tmp_path) == []
    (tmp_path / runs[3].id / "record.json").unlink()
    train_all(runs, tmp_path)
    after = {run.id: (tmp_path / run.id / "record.json").stat().st_mtime_ns for run in runs}
    assert [i for i in before if before[i] != after[i]] == [runs[3].id]
    assert not list(tmp_path.glob("*/progress.json"))


def test_unwritable_folder_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file, not a folder")
    with pytest.raises(JobError, match="cannot be written") as error:
        train_all(teacher_and_students(), tmp_path / "runs")
    assert "\n" not in str(error.value)


# --- kills ---------------------------------------------------------------------------------------

GRID = """
name: tiny
dataset: {name: digits, per_class: 7}
protocol: {preset: demo, epochs: 12, batch_size: 16}
seeds: [0, 1]
pairs: [r8w4 -> r8w3]
methods: [kd, at]
executor: {checkpoint_seconds: 0}
"""


def command(tmp_path: Path, name: str) -> list[str]:
    """Return the command that trains the grid in the folder ``name``."""
    grid = tmp_path / "tiny.yaml"
    grid.write_text(GRID)
    folders = ["--runs", str(tmp_path / name), "--results", str(tmp_path / f"{name}-results")]
    line = [sys.executable, "-m", "kdbench", "run", "--grid", str(grid), *folders]
    return [*line, "--workers", "2"]


def results(folder: Path) -> dict[str, object]:
    """Load the results of all runs in a folder, by the runs' ids."""
    ids = {path.parent.name for path in folder.glob("*/run.json")}
    return {i: record.result for i in ids if (record := records.read(folder, i))}


@pytest.mark.slow
@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_two_runners_and_a_killed_worker_change_no_result(tmp_path: Path) -> None:
    undisturbed = command(tmp_path, "undisturbed")
    done = subprocess.run(undisturbed, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "7 runs, 0 recorded, 7 to train" in done.stdout
    expected = results(tmp_path / "undisturbed")
    assert len(expected) == 7
    line = command(tmp_path, "hurt")
    stopped = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _wait_for_heartbeat(tmp_path / "hurt", stopped)
    stopped.send_signal(signal.SIGINT)
    _, stderr = stopped.communicate(timeout=60)
    assert stopped.returncode == 130
    assert "repeat the command to resume" in stderr
    runners = [subprocess.Popen(line, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    killed = _kill_a_worker(tmp_path / "hurt", runners)
    out = [runner.communicate(timeout=240)[0] for runner in runners]
    assert [runner.returncode for runner in runners] == [0, 0], out
    assert not killed or any("died of signal 9" in text for text in out)
    assert results(tmp_path / "hurt") == expected


def _wait_for_heartbeat(folder: Path, process: subprocess.Popen[str]) -> None:
    while process.poll() is None and not list(folder.glob("*/progress.json")):
        time.sleep(0.02)


def _kill_a_worker(folder: Path, runners: list[subprocess.Popen[str]]) -> bool:
    """Kill the worker of a heartbeat; return False if the runners finished before any heartbeat."""
    while any(runner.poll() is None for runner in runners):
        for path in folder.glob("*/progress.json"):
            beat = heartbeat.read(folder, path.parent.name)
            if beat and beat.pid not in {runner.pid for runner in runners}:
                try:
                    os.kill(beat.pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
                return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize(
    ("death", "reason"),
    [
        pytest.param("os._exit(9)", "last of exit code 9", marks=pytest.mark.slow),
        (
            "os.abort()",
            "last of signal 6: crash in native code (torch), not in the method; network: r8w3 "
            "taught by r8w4; try another version of torch",
        ),
        (
            'raise DeviceLost("CUDA error: device-side assert triggered")',
            "last of exit code 70: an error on the GPU, after which it refused all work; often a "
            "method uses an index that is out of range; with CUDA_LAUNCH_BLOCKING=1",
        ),
    ],
)
def test_run_that_keeps_killing_its_worker_fails(tmp_path: Path, death: str, reason: str) -> None:
    text = RAISES.replace('raise RuntimeError("a bug in step 5")', death).replace(
        "from kdbench.method",
        "import os\n\nfrom kdbench.training.device import DeviceLost\nfrom kdbench.method",
    )
    teacher = alone(student="r8w4", training=TRAINING.model_copy(update={"epochs": 1}))
    train([teacher], tmp_path / "runs")
    deadly = replace(taught(teacher, plugin(tmp_path, "deadly", text)), training=TRAINING)
    good = taught(teacher, "kd")
    executor = Executor(kind="local", workers=1, device="cpu", checkpoint_seconds=0)
    events = train_all([teacher, deadly, good], tmp_path / "runs", executor)
    written = records.load(tmp_path / "runs", (deadly.id, good.id))
    assert written[deadly.id].status == "failed"
    assert written[deadly.id].reason.startswith(f"its worker died 3 times, {reason}")
    assert written[good.id].status == "done"
    lines = [line for event in events for line in event.line.splitlines()]
    assert len(lines) == 3
    cause = reason.removeprefix("last of ").partition(";")[0]
    assert all(f" died of {cause}; its runs resume in another worker" in line for line in lines)


def test_lost_gpu_ends_training_in_this_process_with_one_line(tmp_path: Path) -> None:
    """The process cannot train anything else, but what it had written stays."""
    lost = 'raise __import__("torch").AcceleratorError("CUDA error: device-side assert triggered")'
    text = RAISES.replace('raise RuntimeError("a bug in step 5")', lost)
    teacher = alone(student="r8w4", training=TRAINING.model_copy(update={"epochs": 1}))
    run = replace(taught(teacher, plugin(tmp_path, "deadly", text)), training=TRAINING)
    with pytest.raises(JobError, match=r"refuses all further work .*device-side assert .*intact"):
        train_all([teacher, run], tmp_path / "runs")
    assert records.read(tmp_path / "runs", run.id) is None
    trained = records.read(tmp_path / "runs", teacher.id)
    assert trained is not None and trained.status == "done"
