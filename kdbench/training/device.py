"""A device prepared for training: the same bits in every process, and the precision asked for.

``prepare`` is called before a process first uses a GPU. It is the only place that changes torch's
settings for GPUs; docs/gpu.md gives the reason for each of them.
"""

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from kdbench.errors import UserError

WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
"""Variable and value with which products of matrices are the same in every process."""
OVERRIDE = "NVIDIA_TF32_OVERRIDE"
"""Variable that makes NVIDIA's libraries ignore whether TF32 was asked for."""
VARYING = re.compile(r"(\S+) does not have a deterministic implementation")
"""Start of torch's warning for an operation whose result varies in the last bits."""


class DeviceError(UserError):
    """A device cannot do what a run asks for; one line."""


def prepare(device: torch.device, precision: str = "fp32") -> None:
    """Make this process train on ``device`` with the same bits as any other process.

    On a GPU: select it, allow only deterministic algorithms, never choose an algorithm by timing,
    and let convolutions use TF32 only for ``tf32``. Products of matrices, which the small losses
    use, are IEEE single precision in every case. On a CPU there is nothing to set.

    Args:
        precision: "fp32", "tf32" or "bf16", as in ``protocol.precision``.

    Raises:
        DeviceError: the device cannot compute in this precision.
    """
    if device.type != "cuda":
        if precision == "tf32":
            raise DeviceError(
                f"protocol.precision: tf32: only GPUs have it, and this trains on a {device.type}; "
                "accepted here: fp32, bf16"
            )
        return
    os.environ[WORKSPACE[0]] = WORKSPACE[1]
    os.environ.pop(OVERRIDE, None)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Otherwise each new tensor would be filled with NaN: one kernel more for each.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.cuda.set_device(device)


def seed(device: torch.device, key: int) -> None:
    """Seed torch's global generators of the CPU and of ``device``.

    The streams are those of ``torch.manual_seed``, which takes longer than the rest of the host's
    work for a small step, because it also seeds every other kind of device that torch knows.
    """
    torch.default_generator.manual_seed(key)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(key)


@contextmanager
def noting_varying_operations(found: set[str]) -> Iterator[None]:
    """Add to ``found`` the names of operations whose results may vary in the last bits.

    torch warns of them; these warnings are not shown. Costs some microseconds, so use it for the
    first steps only.
    """
    with warnings.catch_warnings():
        shown = warnings.showwarning
        warnings.filterwarnings("always", message=f".*{VARYING.pattern[6:]}")

        def note(message: Warning | str, *rest: Any, **named: Any) -> None:
            match = VARYING.match(str(message))
            if match:
                found.add(match[1])
            else:
                shown(message, *rest, **named)

        warnings.showwarning = note
        yield


# -- errors after which a device cannot be used ------------------------------------------------

STICKY = frozenset({214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 999})
"""CUDA's error codes (``cudaError``) after which every call of the process fails: uncorrectable
memory errors, illegal addresses and instructions, assertions, time-outs."""
STICKY_TEXTS = (
    "device-side assert",
    "illegal memory access",
    "illegal instruction",
    "misaligned address",
    "unspecified launch failure",
    "uncorrectable",
    "hardware stack error",
    "launch timed out",
    "context is destroyed",
)
"""Words of their messages, for errors without a code."""


class DeviceLost(BaseException):
    """A GPU refuses all further work of this process; the process must end, by ``os._exit``.

    Its runs can resume from their checkpoints in another process. Not an ``Exception``: code that
    records a run's failure must not catch it, because the next runs would fail, too.
    """


def lost(error: BaseException) -> bool:
    """Check whether after an error a GPU refuses all further work of this process.

    CUDA reports an error in a kernel at some later call, so ``error`` may come from an innocent
    operation. Such an error comes again whenever the process waits for the device. Errors that
    end with the failed call, such as a lack of memory or a refused capture, do not.
    """
    if isinstance(error, DeviceLost) or _sticky(error):
        return True
    if not isinstance(error, RuntimeError) or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError as again:
        return _sticky(again)
    return False


def _sticky(error: BaseException) -> bool:
    # Torch before 2.8 has no class of its own for these errors.
    if not isinstance(error, getattr(torch, "AcceleratorError", RuntimeError)):
        return False
    code = getattr(error, "error_code", None)
    if code is not None:
        return code in STICKY
    message = str(error)
    return "CUDA error" in message and any(text in message for text in STICKY_TEXTS)
