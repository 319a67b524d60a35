"""What the figures of a check depend on: card, driver, versions and settings."""

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from benchmarks.gpu_check.check import Check
from kdbench.training import device as devices

PACKAGES = ("torch", "torchvision", "triton", "numpy", "pydantic", "nvidia-ml-py")


def run(check: Check) -> None:
    """Write what this machine is, and how long its first kernel takes."""
    check.line(
        what="versions",
        python=platform.python_version(),
        cuda=torch.version.cuda,
        cudnn=torch.backends.cudnn.version(),
        packages={name: found for name in PACKAGES if (found := installed(name))},
        cores=os.cpu_count(),
        cores_here=len(os.sched_getaffinity(0)),
        import_s=round(time.monotonic() - check.began, 2),
    )
    began = time.perf_counter()
    devices.prepare(check.device)
    torch.zeros(1, device=check.device).add_(1)
    check.synchronize()
    check.line(what="first kernel", seconds=round(time.perf_counter() - began, 2))
    check.line(what="settings", **settings())
    if not check.cuda:
        check.skip("card", "a CPU has no SMs, driver or memory of its own")
        check.outcome.headline = f"torch {torch.__version__} on a CPU"
        return
    about = torch.cuda.get_device_properties(check.device)
    free, total = torch.cuda.mem_get_info(check.device)
    check.line(
        what="card",
        name=about.name,
        capability=f"{about.major}.{about.minor}",
        multiprocessors=about.multi_processor_count,
        l2_mib=getattr(about, "L2_cache_size", 0) / 2**20,
        memory_gib=round(total / 2**30, 1),
        free_gib=round(free / 2**30, 1),
        driver=driver(),
    )
    check.expect(torch.cuda.is_available(), "CUDA is there")
    check.outcome.headline = f"{about.name}, torch {torch.__version__}, CUDA {torch.version.cuda}"


def installed(package: str) -> str:
    """Return a package's version, or "" if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def driver() -> str:
    """Return the version of the card's driver, or why it is unknown."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except Exception as error:
        return f"unknown: {error}"


def settings() -> dict[str, Any]:
    """Return torch's settings that decide bits."""
    cudnn = torch.backends.cudnn
    return {
        "cudnn_tf32": cudnn.allow_tf32,
        "matmul_tf32": torch.backends.cuda.matmul.allow_tf32,
        "cudnn_benchmark": cudnn.benchmark,
        "cudnn_deterministic": cudnn.deterministic,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "workspace": os.environ.get(devices.WORKSPACE[0], ""),
    }
