"""What a record states about a GPU: everything besides torch that may decide bits on it."""

from typing import Any

import torch

from kdbench.runs import environment
from kdbench.training.learner import Learner


def gpu_facts(device: torch.device) -> dict[str, Any]:
    """Describe a GPU, its software and the settings of this process; empty on other devices.

    Returns:
        ``cuda``, ``cudnn`` and ``driver``: versions; None if unknown. ``capability``: of the GPU,
        as ``9.0``. ``multiprocessors``: their number. ``gpu_mb``: its memory. ``tf32``: whether
        convolutions use TF32. ``deterministic``: whether only deterministic algorithms are used.
    """
    if device.type != "cuda":
        return {}
    gpu = torch.cuda.get_device_properties(device)
    return {
        "cuda": torch.version.cuda,
        "cudnn": _dotted(torch.backends.cudnn.version()),
        "driver": environment.gpu_driver(),
        "capability": f"{gpu.major}.{gpu.minor}",
        "multiprocessors": gpu.multi_processor_count,
        "gpu_mb": gpu.total_memory >> 20,
        "tf32": torch.backends.cudnn.allow_tf32,
        "deterministic": torch.are_deterministic_algorithms_enabled()
        and torch.backends.cudnn.deterministic,
    }


def step_facts(learner: Learner) -> dict[str, Any]:
    """Describe how a learner's steps were computed on a GPU; empty on other devices.

    Returns:
        ``graphed``: "yes" if its steps were CUDA graphs, "no", or why they could not be.
        ``nondeterministic``: names of operations that may vary in the last bits, if any.
    """
    if learner.device.type != "cuda":
        return {}
    facts: dict[str, Any] = {"graphed": learner.graphed}
    return facts | ({"nondeterministic": sorted(learner.varying)} if learner.varying else {})


def _dotted(version: int | None) -> str | None:
    """Return cuDNN's version, such as 91002, as ``9.10.2``."""
    if version is None:
        return None
    thousands = 10_000 if version >= 90_000 else 1_000  # cuDNN 9 changed the encoding
    return f"{version // thousands}.{version % thousands // 100}.{version % 100}"
