"""The device of a worker: what torch cannot use, and what a device cannot do, is one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_grids import mistakes, write
from tiny_runs import CPU, TRAINING, alone

from kdbench.execution import worker
from kdbench.execution.devices import check_possible, choose_device
from kdbench.execution.memory_fit import MemoryFit
from kdbench.execution.work import JobError, Work
from kdbench.execution.worker import Worker
from kdbench.grid.grid import Executor


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch see two GPUs, without a function of theirs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def _no_records(folder: Path) -> bool:
    return not list((folder / "runs").rglob("record.json"))


# --- a user's mistakes, one line each, before anything is trained --------------------------------


@pytest.mark.parametrize("kind", ["debug", "local"])
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_gpu_that_torch_does_not_see_is_reported_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, kind: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    grid = write(tmp_path, executor={"kind": kind, "device": device})
    [message] = mistakes("run", "--grid", grid, "--runs", tmp_path / "runs")
    assert message == (
        f"executor.device: {device}: torch {torch.__version__} sees no GPU here; accepted here: "
        "auto, cpu"
    )
    assert _no_records(tmp_path)


@pytest.mark.usefixtures("two_gpus")
def test_number_of_a_gpu_that_is_not_there_is_reported_before_training(tmp_path: Path) -> None:
    grid = write(tmp_path, executor={"kind": "debug", "device": "cuda:7"})
    [message] = mistakes("run", "--grid", grid, "--runs", tmp_path / "runs")
    assert message == (
        "executor.device: cuda:7: torch sees 2 GPUs here; accepted here: auto, cpu, cuda, cuda:0 "
        "to cuda:1"
    )
    assert _no_records(tmp_path)


@pytest.mark.parametrize("kind", ["debug", "local"])
def test_tf32_on_a_cpu_is_reported_before_its_teacher_is_trained(tmp_path: Path, kind: str) -> None:
    grid = write(
        tmp_path,
        protocol={"preset": "demo", "epochs": 1, "precision": "tf32"},
        teacher={"protocol": {"preset": "demo", "epochs": 1}},
        executor={"kind": kind, "device": "cpu"},
    )
    [message] = mistakes("run", "--grid", grid, "--runs", tmp_path / "runs")
    assert message.startswith("protocol.precision: tf32: only GPUs have it")
    assert message.endswith("accepted here: fp32, bf16")
    assert _no_records(tmp_path)


@pytest.mark.parametrize("kind", ["debug", "local"])
def test_graphs_always_without_a_gpu_is_reported_before_training(tmp_path: Path, kind: str) -> None:
    grid = write(tmp_path, executor={"kind": kind, "device": "cpu", "graphs": "always"})
    [message] = mistakes("run", "--grid", grid, "--runs", tmp_path / "runs")
    assert message == (
        "executor.graphs: always: only GPUs have CUDA graphs, and this trains on a cpu; accepted "
        "here: auto, never"
    )
    assert _no_records(tmp_path)


def test_unknown_device_of_an_analysis_is_reported(tmp_path: Path) -> None:
    command = ("analyse", "fidelity", "0123", "--runs", tmp_path, "--device", "gpu:0")
    [message] = mistakes(*command)
    assert message == "--device: gpu:0: unknown; accepted: auto, cpu, cuda, cuda:N"


# --- workers and GPUs ----------------------------------------------------------------------------


@pytest.mark.usefixtures("two_gpus")
def test_workers_spread_over_the_gpus() -> None:
    chosen = [choose_device(name, number) for name in ("auto", "cuda") for number in range(3)]
    assert chosen == [torch.device("cuda", i) for i in (0, 1, 0)] * 2
    assert choose_device("cuda:1", 4) == torch.device("cuda", 1)
    assert choose_device("cpu", 4) == CPU


def test_auto_without_a_gpu_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto", 1) == CPU


@pytest.mark.parametrize("capability", [(7, 5), (8, 0)])
def test_tf32_needs_a_gpu_that_has_it(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    runs = [alone(), alone(training=TRAINING.model_copy(update={"precision": "tf32"}))]
    gpu = torch.device("cuda", 0)
    check_possible(runs[:1], Executor(), gpu)
    if capability >= (8, 0):
        check_possible(runs, Executor(), gpu)
    else:
        with pytest.raises(JobError, match=r"tf32: Tesla T4 has no TF32, .*accepted here: fp32"):
            check_possible(runs, Executor(), gpu)


def test_graphs_always_is_refused_with_several_ranks() -> None:
    executor = Executor(kind="slurm", graphs="always", ranks=2)
    with pytest.raises(JobError, match=r"executor\.graphs: always: not with executor\.ranks: 2"):
        check_possible([alone()], executor, torch.device("cuda", 0))


# --- preparing the device ------------------------------------------------------------------------


def _worker(tmp_path: Path, precisions: tuple[str, ...] = ("fp32",)) -> Worker:
    runs = [
        alone(seed, training=TRAINING.model_copy(update={"precision": precision}))
        for seed, precision in enumerate(precisions)
    ]
    executor = Executor(kind="debug", device="cpu")
    task = Work(tuple((run,) for run in runs), tmp_path, Path("data"), executor)
    return Worker(task, 0, lambda: False, lambda beats, line: None)


def test_worker_prepares_its_device_first_and_again_for_each_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def fit(*args: Any) -> MemoryFit:
        calls.append("memory")
        return MemoryFit(None)

    monkeypatch.setattr(worker, "prepare", lambda device, precision="": calls.append(precision))
    monkeypatch.setattr(worker, "_memory_fit", fit)
    made = _worker(tmp_path, ("fp32", "bf16"))
    assert calls == ["", "memory"]
    made.run()
    assert calls[2:] == ["fp32", "bf16"]


@pytest.mark.parametrize("error", [RuntimeError, getattr(torch, "AcceleratorError", RuntimeError)])
def test_device_that_fails_at_its_first_use_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Callable[[str], Exception]
) -> None:
    def fails(*args: object) -> None:
        raise error("CUDA error: device is busy\nCUDA kernel errors might be reported later")

    monkeypatch.setattr(worker, "prepare", fails)
    with pytest.raises(JobError, match=r"executor\.device: cpu: torch cannot use it: CUDA error"):
        _worker(tmp_path)
