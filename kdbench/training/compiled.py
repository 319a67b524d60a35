"""``compile: true``: a student's training step through ``torch.compile``; never by itself.

It rounds otherwise than the network as it is written, so it is part of the protocol. Learners of
the same network, batch and precision share what was compiled, and these alone decide what that is:
no learner changes another's numbers.
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
    """The network's forward pass, [B, C, H, W] to ``Features``, compiled at its first call.

    The network itself stays as it is, and shares its weights.
    """
    # Beyond a number of variants torch would go on uncompiled, with other numbers, and not say so.
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    call: Callable[[Tensor], Features] = torch.compile(network, dynamic=False)
    return call


def discard_compiled() -> None:
    """Let go of what was compiled for earlier cohorts; code on disk stays for the next."""
    torch.compiler.reset()


def why_unavailable(device: torch.device) -> str:
    """Why nothing can be compiled for a device here; empty where it can."""
    if device.type == "cuda":
        there = importlib.util.find_spec("triton")
        return "" if there else "on GPUs that needs triton, which this environment lacks"
    wanted = os.environ.get("CXX")
    if any(shutil.which(name) for name in ([wanted] if wanted else COMPILERS)):
        return ""
    said = f"CXX={wanted} is not there" if wanted else f"none of {', '.join(COMPILERS)} is there"
    return f"on CPUs that needs a C++ compiler, and {said}"
