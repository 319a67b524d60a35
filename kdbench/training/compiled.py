"""``compile: true``: a student's training step with ``torch.compile``; off by default.

It rounds differently from the uncompiled network, so it is part of the protocol. Learners of the
same network, batch and precision share compiled code, which depends on nothing else; so no learner
changes another's numbers.
"""

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.method import Features

COMPILERS = ("g++", "clang++", "c++")
NO_TIMING: dict[str, Any] = {
    "max_autotune": False,
    "max_autotune_pointwise": False,
    "max_autotune_gemm": False,
    "incremental_autotune": False,
    "coordinate_descent_tuning": False,
    "benchmark_fusion": False,
    "shape_padding": False,
    "triton.multi_kernel": 0,
    "triton.mix_order_reduction_autotune_split_size": False,
    "triton.cudagraphs": False,
}
"""Options of inductor that forbid it to choose kernels by their measured times.

A choice by time differs from one process to the next, and so would a run's bits. Without these
options, environment variables such as TORCHINDUCTOR_MAX_AUTOTUNE would decide. Graphs are captured
by kdbench, not by inductor.
"""


def compiled(network: nn.Module, *, two_backwards: bool = False) -> Callable[[Tensor], Features]:
    """Return a network's forward pass, [B, C, H, W] to ``Features``, compiled at its first call.

    The network is unchanged, and shares its weights with the returned function.

    Args:
        two_backwards: allow a second backward pass, for which the first must not reuse the memory
            of what it reads. All learners of a cohort have the same value.
    """
    # Beyond a number of variants torch would silently run uncompiled, with other numbers.
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    device = next(network.parameters()).device
    call: Callable[[Tensor], Features] = torch.compile(
        network, dynamic=False, options=_options(device)
    )
    return partial(_without_donations, call) if two_backwards else call


def _without_donations(call: Callable[[Tensor], Features], images: Tensor) -> Features:
    with graph_kept():
        return call(images)


@contextmanager
def graph_kept() -> Iterator[None]:
    """Return a context in which compiled code leaves the memory that it reads as it is.

    The backward pass runs in this thread in it, because the setting is one of the thread.
    """
    with (
        torch._functorch.config.patch(donated_buffer=False),
        torch.autograd.set_multithreading_enabled(False),
    ):
        yield


def _options(device: torch.device) -> dict[str, Any]:
    """Return the options for inductor that this version of torch knows."""
    options = dict(NO_TIMING)
    if device.type == "cuda":
        # An error where inductor would measure times that affect bits. On a CPU it measures none,
        # and the option would change how some kernels are fused, hence bits.
        options["deterministic"] = True
    known = torch._inductor.list_options()
    return {name: value for name, value in options.items() if name in known}


def discard_compiled() -> None:
    """Discard code compiled for earlier cohorts; torch's cache on disk stays."""
    torch.compiler.reset()


def why_unavailable(device: torch.device) -> str:
    """Return why networks cannot be compiled for a device here; empty if they can."""
    if device.type == "cuda":
        triton = importlib.util.find_spec("triton")
        return "" if triton else "on GPUs this needs triton, which is not installed"
    compiler = os.environ.get("CXX")
    if any(shutil.which(name) for name in ([compiler] if compiler else COMPILERS)):
        return ""
    missing = f"CXX={compiler}" if compiler else f"any of {', '.join(COMPILERS)}"
    return f"on CPUs this needs a C++ compiler, but {missing} was not found"
