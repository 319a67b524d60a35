"""Settings of a GPU, the cheap seed, operations that may vary, and the rate of a captured step."""

import os
import warnings
from collections.abc import Iterator

import pytest
import torch

from kdbench.method import Batch
from kdbench.rng import key
from kdbench.training import device
from kdbench.training.schedule import Rate

GPU = torch.device("cuda:1")
CPU = torch.device("cpu")


@pytest.fixture
def selected(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.device]]:
    """Return the devices that are selected; put back every setting afterwards."""
    chosen: list[torch.device] = []
    settings = [
        (torch.backends.cudnn, "benchmark"),
        (torch.backends.cudnn, "deterministic"),
        (torch.backends.cudnn, "allow_tf32"),
        (torch.backends.cuda.matmul, "allow_tf32"),
        (torch.utils.deterministic, "fill_uninitialized_memory"),
    ]
    before = [getattr(module, name) for module, name in settings]
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.delenv(device.WORKSPACE[0], raising=False)
    yield chosen
    torch.use_deterministic_algorithms(False)
    for (module, name), value in zip(settings, before, strict=True):
        setattr(module, name, value)
    os.environ.pop(device.WORKSPACE[0], None)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_gpu_is_deterministic_and_rounds_as_asked(
    selected: list[torch.device], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(device.OVERRIDE, "0")
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = precision != "tf32"
    torch.backends.cuda.matmul.allow_tf32 = True
    device.prepare(GPU, precision)
    assert selected == [GPU]
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert device.OVERRIDE not in os.environ
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert not getattr(torch.utils.deterministic, "fill_uninitialized_memory")  # noqa: B009
    assert torch.backends.cudnn.allow_tf32 == (precision == "tf32")
    assert not torch.backends.cuda.matmul.allow_tf32


def test_cpu_needs_no_settings(selected: list[torch.device]) -> None:
    device.prepare(CPU, "fp32")
    device.prepare(CPU, "bf16")
    assert not selected and not torch.are_deterministic_algorithms_enabled()
    with pytest.raises(device.DeviceError, match=r"precision: tf32: only GPUs .* fp32, bf16"):
        device.prepare(CPU, "tf32")


def test_cheap_seed_gives_the_streams_of_manual_seed() -> None:
    for seed in (0, 5, key(3, "step", "train", 1, 2)):
        torch.manual_seed(seed)
        expected = torch.rand(5), torch.randperm(9), torch.randn(3)
        device.seed(CPU, seed)
        assert all(map(torch.equal, (torch.rand(5), torch.randperm(9), torch.randn(3)), expected))


def test_varying_operations_are_noted_and_other_warnings_shown() -> None:
    found: set[str] = set()
    message = (
        "adaptive_avg_pool2d_backward_cuda does not have a deterministic implementation, but you "
        "set 'torch.use_deterministic_algorithms(True, warn_only=True)'."
    )
    with (
        pytest.warns(UserWarning, match="something else") as shown,
        device.noting_varying_operations(found),
    ):
        for text in (message, message, "something else"):
            warnings.warn(text, UserWarning, stacklevel=1)
    assert found == {"adaptive_avg_pool2d_backward_cuda"}
    assert len(shown) == 1


def test_rate_of_a_gpu_stays_in_one_tensor_and_is_saved_as_a_number() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=0.5, momentum=0.9, fused=True)
    rate = Rate(CPU)
    rate.set(optimizer, 0.25)
    assert optimizer.param_groups[0]["lr"] == 0.25
    rate.tensor = torch.zeros(())
    for value in (0.25, 0.125):
        rate.value = float("nan")
        rate.set(optimizer, value)
        assert optimizer.param_groups[0]["lr"] is rate.tensor
        assert float(rate.tensor) == value
    assert rate.as_number(optimizer.state_dict())["param_groups"][0]["lr"] == 0.125
    assert optimizer.param_groups[0]["lr"] is rate.tensor


def test_generator_of_a_batch_depends_on_seed_purpose_and_step() -> None:
    labels = torch.zeros(4, dtype=torch.int64)

    def drawn(step: int, *purpose: str | int, seed: int = 1) -> list[float]:
        batch = Batch(torch.zeros(4, 1), labels, labels, step=step)
        return torch.rand(3, generator=batch.generator(seed, *purpose)).tolist()

    assert drawn(2, "x") == drawn(2, "x")
    assert len({tuple(x) for x in (drawn(2, "x"), drawn(3, "x"), drawn(2, "y"))}) == 3
    assert drawn(2, "x") != drawn(2, "x", seed=2)
    expected = torch.Generator().manual_seed(key(1, "crd", 7))
    assert drawn(7, "crd") == torch.rand(3, generator=expected).tolist()
