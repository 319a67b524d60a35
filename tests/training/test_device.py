"""A device prepared for training, and errors after which it cannot be used."""

import pytest
import torch

from kdbench.training import device
from kdbench.training.device import DeviceLost


def accelerator_error(message: str, code: int | None = None) -> Exception:
    """Return an error as torch raises it for CUDA; torch before 2.8 has no class for it."""
    error: Exception = getattr(torch, "AcceleratorError", RuntimeError)(message)
    if code is not None:
        error.error_code = code  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    "error",
    [
        DeviceLost("gone"),
        accelerator_error("CUDA error: device-side assert triggered\nCUDA kernel errors might"),
        accelerator_error("CUDA error: an illegal memory access was encountered"),
        accelerator_error("CUDA error: whatever", 719),
    ],
)
def test_device_is_lost_after_an_error_of_its_context(error: BaseException) -> None:
    assert device.lost(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("the sizes differ"),
        ValueError("CUDA error: device-side assert triggered"),
        torch.OutOfMemoryError("CUDA out of memory"),
        accelerator_error("CUDA error: out of memory", 2),
        accelerator_error("CUDA error: out of memory"),
        accelerator_error("CUDA error: operation not permitted when stream is capturing", 900),
        accelerator_error("CUDA error: operation failed due to a previous error during capture"),
    ],
)
def test_device_is_not_lost_after_an_error_of_one_call(error: BaseException) -> None:
    assert not device.lost(error)


def test_error_that_comes_again_when_waiting_for_the_device_means_it_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """cuBLAS and cuDNN report an earlier error of a kernel as their own failure."""
    blamed = RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`")
    assert not device.lost(blamed)  # no GPU is in use here
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    assert not device.lost(blamed)

    def fails() -> None:
        raise accelerator_error("CUDA error: device-side assert triggered", 710)

    monkeypatch.setattr(torch.cuda, "synchronize", fails)
    assert device.lost(blamed)
    assert not device.lost(ValueError("not from the device"))


def test_lost_device_is_not_recorded_as_the_failure_of_a_run() -> None:
    assert not issubclass(DeviceLost, Exception)
