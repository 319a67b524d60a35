"""Missing runs and their grouping into cohorts."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from debug_runner import teacher_and_students
from tiny_runs import alone, taught

from kdbench.execution import work
from kdbench.grid.grid import Executor
from kdbench.runs import records
from kdbench.runs.records import Record


def test_cohorts_share_teacher_and_seed_and_teachers_come_first() -> None:
    runs = teacher_and_students()
    groups = work.cohorts(runs, most=16, workers=1)
    assert groups[0] == (runs[0],)
    assert sorted(len(group) for group in groups[1:]) == [1, 1, 3, 3]
    assert all(len({run.shared for run in group}) == 1 for group in groups)
    assert Counter(run.id for group in groups for run in group) == Counter(r.id for r in runs)
    assert max(len(group) for group in work.cohorts(runs, most=2, workers=1)) == 2


def test_several_workers_get_enough_cohorts() -> None:
    teacher = alone(student="r8w4")
    runs = [teacher, *(taught(teacher, "kd", student=f"r8w{w}") for w in range(3, 19))]
    groups = work.cohorts(runs, most=16, workers=2)
    assert len(groups) - 1 >= 8


def test_runs_with_a_record_are_not_missing(tmp_path: Path) -> None:
    runs = teacher_and_students()
    records.write_run(tmp_path, runs[1])
    records.write(tmp_path, Record(runs[1].id, "failed", "why not"))
    assert work.missing(runs, tmp_path) == [runs[0], *runs[2:]]


# --- workers for GPUs ----------------------------------------------------------------------------


@pytest.fixture
def two_gpus_without_signs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let torch see two GPUs, but hide every sign of a driver."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(work, "DRIVER", (tmp_path / "driver",))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(work, "environment", SimpleNamespace(cores=lambda: 16))
    monkeypatch.setattr(work.saved_tuning, "load", lambda: None)


@pytest.mark.usefixtures("two_gpus_without_signs")
@pytest.mark.parametrize("sign", ["file", "variable", "program", "none"])
def test_every_sign_of_a_driver_gives_a_worker_for_each_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sign: str
) -> None:
    if sign == "file":
        (tmp_path / "driver").touch()
    elif sign == "variable":
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    elif sign == "program":
        (tmp_path / "nvidia-smi").touch(mode=0o755)
    assert work.workers(Executor()) == (16 if sign == "none" else 2)
    assert work.workers(Executor(workers=5)) == 5


@pytest.mark.usefixtures("two_gpus_without_signs")
def test_named_gpus_need_no_sign_of_a_driver() -> None:
    assert work.workers(Executor(device="cuda")) == 2
    assert work.workers(Executor(device="cuda:1")) == 1
    assert work.workers(Executor(device="cpu")) == 16


def test_driver_is_found_on_linux_in_containers_and_on_wsl() -> None:
    names = {str(path) for path in work.DRIVER}
    assert names == {"/proc/driver/nvidia", "/dev/nvidiactl", "/dev/dxg"}
