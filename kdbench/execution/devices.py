"""The device of a worker, and whether it can do what a grid asks for; checked before training."""

import re
from collections.abc import Iterable

import torch

from kdbench.execution.work import JobError
from kdbench.grid.grid import Executor
from kdbench.grid.run import Run
from kdbench.training import compiled
from kdbench.training.device import DeviceError, prepare
from kdbench.wording import counted

TF32_SINCE = (8, 0)
"""Compute capability of the first GPUs with TF32."""


def choose_device(name: str, number: int = 0, *, key: str = "executor.device") -> torch.device:
    """Return the device of worker ``number``; workers spread over the GPUs, if there are any.

    Args:
        name: as ``executor.device``.
        key: the setting that has this name, for the message.

    Raises:
        JobError: no device has this name, or torch sees no such GPU.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise JobError(f"{key}: {name}: unknown; accepted: auto, cpu, cuda, cuda:N")
    gpus = torch.cuda.device_count() if name != "cpu" and torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda" if gpus else "cpu"
    if name.startswith("cuda") and not gpus:
        raise JobError(
            f"{key}: {name}: torch {torch.__version__} sees no GPU here; accepted here: auto, cpu"
        )
    if name == "cuda":
        name = f"cuda:{number % gpus}"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= gpus:
        several = f"cuda:0 to cuda:{gpus - 1}" if gpus > 1 else "cuda:0"
        raise JobError(
            f"{key}: {name}: torch sees {counted(gpus, 'GPU')} here; accepted here: auto, cpu, "
            f"cuda, {several}"
        )
    return device


def check_possible(runs: Iterable[Run], executor: Executor, device: torch.device) -> None:
    """Check that a device can train runs as they and the executor ask.

    Raises:
        JobError: it cannot; one line names the setting and what it may be here.
    """
    if executor.graphs == "always" and device.type != "cuda":
        raise JobError(
            "executor.graphs: always: only GPUs have CUDA graphs, and this trains on a "
            f"{device.type}; accepted here: auto, never"
        )
    if executor.graphs == "always" and executor.ranks > 1:
        raise JobError(
            f"executor.graphs: always: not with executor.ranks: {executor.ranks}, which trains "
            "without CUDA graphs; accepted here: auto, never"
        )
    settings = {(run.training.precision, run.training.compile) for run in runs}
    for precision in sorted({precision for precision, _ in settings}):
        _check_precision(precision, device)
    if any(compile for _, compile in settings):
        hindrance = compiled.why_unavailable(device)
        if hindrance:
            raise JobError(f"protocol.compile: true: {hindrance}; accepted here: false")


def _check_precision(precision: str, device: torch.device) -> None:
    if device.type != "cuda":
        try:
            prepare(device, precision)
        except DeviceError as error:
            raise JobError(str(error)) from None
    elif precision == "tf32":
        capability = torch.cuda.get_device_capability(device)
        if capability < TF32_SINCE:
            raise JobError(
                f"protocol.precision: tf32: {torch.cuda.get_device_name(device)} has no TF32, "
                f"which capability {_dotted(TF32_SINCE)} and newer have, not "
                f"{_dotted(capability)}; accepted here: fp32, bf16"
            )


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))
