"""What records state about a GPU."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_runs import CPU, alone, train

from kdbench.runs import environment
from kdbench.training import bookkeeping
from kdbench.training.gpu_facts import gpu_facts, step_facts

GPU = torch.device("cuda", 0)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace what torch says of a GPU."""
    properties = SimpleNamespace(
        major=9, minor=0, multi_processor_count=132, total_memory=141 << 30
    )
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    monkeypatch.setattr(environment, "gpu_driver", lambda: "580.65.06")


@pytest.mark.usefixtures("card")
def test_facts_of_a_gpu() -> None:
    assert gpu_facts(GPU) == {
        "cuda": "13.0",
        "cudnn": "9.10.2",
        "driver": "580.65.06",
        "capability": "9.0",
        "multiprocessors": 132,
        "gpu_mb": 141 << 10,
        "tf32": True,
        "deterministic": True,
    }


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize(("number", "version"), [(8907, "8.9.7"), (92400, "9.24.0"), (None, None)])
def test_version_of_cudnn(
    monkeypatch: pytest.MonkeyPatch, number: int | None, version: str | None
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: number)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: False)
    facts = gpu_facts(GPU)
    assert facts["cudnn"] == version
    assert facts["deterministic"] is False


def test_facts_of_a_learners_steps() -> None:
    def learner(device: torch.device, **values: Any) -> Any:
        return SimpleNamespace(device=device, **({"graphed": "no", "varying": set()} | values))

    assert step_facts(learner(GPU)) == {"graphed": "no"}
    assert step_facts(learner(GPU, graphed="yes", varying={"b", "a"})) == {
        "graphed": "yes",
        "nondeterministic": ["a", "b"],
    }
    assert gpu_facts(CPU) == step_facts(learner(CPU, graphed="yes", varying={"a"})) == {}


def test_record_made_on_a_cpu_states_what_it_always_did(tmp_path: Path) -> None:
    [record] = train([alone()], tmp_path).values()
    described = environment.describe("cpu", 1, "")
    assert record.environment.keys() == described.keys() | {"started", "ended"}


def test_record_made_on_a_gpu_states_the_gpu_and_how_its_steps_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The facts are a fake GPU's; the training is on a CPU."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr(bookkeeping, "gpu_facts", lambda device: {"cuda": "13.0"})
    monkeypatch.setattr(bookkeeping, "step_facts", lambda learner: {"graphed": learner.graphed})
    [record] = train([alone()], tmp_path, graphs="never").values()
    stated = {"device": "NVIDIA H200", "cuda": "13.0", "graphs": "never", "graphed": "no"}
    assert record.environment.items() >= stated.items()
