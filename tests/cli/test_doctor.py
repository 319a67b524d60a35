"""What ``kdbench doctor`` says about GPUs, with pretended GPUs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kdbench.cli import doctor_gpu
from kdbench.cost import saved_tuning
from kdbench.cost.saved_tuning import GpuTuning, MeasuredGpuUse
from kdbench.training import device as devices

FACTS = {
    "cuda": "13.0",
    "cudnn": "9.10.2",
    "driver": "580.65.06",
    "capability": "9.0",
    "multiprocessors": 132,
}


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """Pretend that there are two cards; return those that were prepared."""
    prepared: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100 * 2**30, 140 * 2**30))
    monkeypatch.setattr(doctor_gpu, "prepare", prepared.append)
    monkeypatch.setattr(doctor_gpu, "gpu_facts", lambda device: FACTS)
    monkeypatch.setattr(doctor_gpu, "graphs_hindrance", lambda device: "")
    return prepared


def test_cards_software_and_use_are_described(
    cards: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_gpu, "version", lambda name: "3.5.0")
    lines = dict(doctor_gpu.lines())
    assert lines["GPUs"] == "NVIDIA H200, NVIDIA H200: one worker each"
    card = "capability 9.0, 132 multiprocessors, 140.0 GB of memory, 100.0 GB free"
    assert lines["GPU 0"] == lines["GPU 1"] == card
    assert cards == [torch.device("cuda:0"), torch.device("cuda:1")]
    assert lines["GPU software"] == "driver 580.65.06, CUDA 13.0, cuDNN 9.10.2, triton 3.5.0"
    assert lines["CUDA graphs"].startswith("possible")
    assert "tf32: convolutions round inputs to 10 bits" in lines["precision on GPUs"]
    assert "doctor --tune" in lines["GPU, measured"]


def test_what_a_card_cannot_do_is_said(
    cards: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> str:
        raise doctor_gpu.PackageNotFoundError(name)

    monkeypatch.setattr(doctor_gpu, "version", absent)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(doctor_gpu, "graphs_hindrance", lambda device: "operation not supported")
    lines = dict(doctor_gpu.lines())
    assert "no triton, which protocol.compile needs" in lines["GPU software"]
    assert lines["CUDA graphs"] == "not possible, so steps run slower: operation not supported"
    assert "tf32: not on this card" in lines["precision on GPUs"]


def test_measured_use_is_shown(
    cards: list[torch.device], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KDBENCH_MACHINE", str(tmp_path / "machine.json"))
    use = MeasuredGpuUse(precision="fp32", graphs=True, streams=2, steps_per_s=9.0)
    saved_tuning.save_gpu("NVIDIA H200", GpuTuning(subject="a cohort", uses=(use,)))
    lines = dict(doctor_gpu.lines())
    assert lines["GPU, measured"] == "executor: {graphs: auto, streams: 2}, for a cohort"


@pytest.mark.parametrize("broken", ["get_device_name", "mem_get_info"])
def test_card_that_cannot_be_used_gives_one_line(
    cards: list[torch.device], monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fails(device: object) -> object:
        raise RuntimeError("CUDA error: out of order\nmore")

    monkeypatch.setattr(torch.cuda, broken, fails)
    assert list(doctor_gpu.lines())[-1][1] == "cannot be used: CUDA error: out of order"


@pytest.mark.parametrize(
    ("driver", "cuda", "expected"),
    [
        (False, "13.0", "none: runs train on the CPU, one worker per core"),
        (True, None, "none: this torch is built without CUDA, so runs train on the CPU, one"),
        (True, "13.0", "none: torch sees no GPU, although NVIDIA's driver is installed; runs"),
    ],
)
def test_without_a_gpu_the_reason_is_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, driver: bool, cuda: str | None, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(doctor_gpu, "DRIVER", (tmp_path if driver else tmp_path / "none",))
    ((item, state),) = doctor_gpu.lines()
    assert item == "GPUs" and state.startswith(expected)


def test_determinism_is_what_torch_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    def settings(on: bool) -> str:
        monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: on)
        monkeypatch.setattr(torch.backends.cudnn, "deterministic", on)
        monkeypatch.setattr(torch.backends.cudnn, "benchmark", not on)
        return doctor_gpu.determinism()

    name, value = devices.WORKSPACE
    monkeypatch.setenv(name, value)
    assert settings(True) == (
        f"only deterministic algorithms, not chosen by timing; {name}={value}"
    )
    monkeypatch.delenv(name)
    assert settings(False) == (
        f"NOT only deterministic algorithms, chosen by timing; {name}=NOT SET"
    )


def test_graphs_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **named: Any) -> Any:
        raise RuntimeError("operation not permitted\nwhen")

    hindrance: Callable[[torch.device], str] = doctor_gpu.graphs_hindrance
    monkeypatch.setattr(torch.cuda, "Stream", refuse)
    assert hindrance(torch.device("cpu")) == "operation not permitted"
