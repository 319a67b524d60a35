"""``compile: true``: a student's training step with ``torch.compile``; off by default.

It rounds differently from the uncompiled network, so it is part of the protocol. Learners of the
same network, batch and precision share compiled code, which depends on nothing else; so no learner
changes another's numbers.
"""

import importlib.util
import os
import shutil
from collections.abc import Callable

import torch
from torch import Tensor, nn

from kdbench.method import Features

COMPILERS = ("g++", "clang++", "c++")


def compiled(network: nn.Module) -> Callable[[Tensor], Features]:
    """Return a network's forward pass, [B, C, H, W] to ``Features``, compiled at its first call.

    The network is unchanged, and shares its weights with the returned function.
    """
    # Beyond a number of variants torch would silently run uncompiled, with other numbers.
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    call: Callable[[Tensor], Features] = torch.compile(network, dynamic=False)
    return call


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
