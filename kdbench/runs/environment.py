"""The environment of a result: versions, commit, device, threads and host."""

import json
import os
import platform
import re
import socket
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import kdbench

DRIVER_FILE = Path("/proc/driver/nvidia/version")
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "pandas", "scikit-learn", "submitit")


@cache
def commit() -> dict[str, Any]:
    """Return the commit of this checkout and whether it has changes; empty outside a checkout.

    A snapshot of a checkout (``kdbench.execution.slurm.code_snapshot``) names its commit and its
    own sha256.
    """
    root = Path(kdbench.__file__).parent.parent
    try:
        snapshot = json.loads((root / "snapshot.json").read_bytes())
        return {key: snapshot[key] for key in ("commit", "dirty", "snapshot") if key in snapshot}
    except (OSError, ValueError):
        pass
    if not (root / ".git").exists():
        return {}
    try:
        head = _git(root, "rev-parse", "HEAD")
        # kdbench itself writes results and runs: they do not change a result.
        code = ("kdbench", "methods", "setup.cfg", "pyproject.toml")
        dirty = bool(_git(root, "status", "--porcelain", "--", *code))
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": head, "dirty": dirty}


def _git(root: Path, *args: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *args], capture_output=True, text=True, check=True, timeout=20
    )
    return done.stdout.strip()


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python, kdbench and the packages that decide results."""
    by_name = {"python": platform.python_version(), "kdbench": kdbench.__version__}
    for name in PACKAGES:
        try:
            by_name[name] = version(name)
        except PackageNotFoundError:
            continue
    return by_name


@cache
def processor() -> str:
    """Return the name of the processor as the operating system reports it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@cache
def gpu_driver() -> str | None:
    """Return the version of NVIDIA's driver, such as ``580.65.06``; None if it is unknown.

    Reads the kernel module's file, or asks ``nvidia-smi``, for at most ten seconds.
    """
    try:
        found = re.search(r"\b\d{3,}(\.\d+)+", DRIVER_FILE.read_text(errors="replace"))
        if found:
            return found[0]
    except OSError:
        pass
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip().partition("\n")[0] or None


def onednn_limit() -> str | None:
    """Return the limit that the environment sets to oneDNN's vector instructions.

    Returns:
        A name in capitals such as ``AVX2``; None if no limit is set.
    """
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "ALL"
    return None if limit.upper() in ("ALL", "DEFAULT") else limit.upper()


def describe(
    device: str, threads: int, cpu_capability: str, gpu: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Describe the environment for a record.

    Args:
        device: ``cpu`` or the name of the GPU.
        threads: ``torch.get_num_threads()``.
        cpu_capability: the vector instructions of ATen's kernels,
            ``torch.backends.cpu.get_cpu_capability()``.
        gpu: more facts about the GPU (``kdbench.training.gpu_facts``).
    """
    return {
        **commit(),
        "versions": versions(),
        "device": device,
        **(gpu or {}),
        "threads": threads,
        "cores": os.cpu_count(),
        "processor": processor(),
        "cpu_capability": cpu_capability,
        "onednn_limit": onednn_limit(),
        "system": f"{platform.system()} {platform.machine()}",
        "host": socket.gethostname(),
    }


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0))
