"""How much memory a device has left for whoever starts now; without torch, but for a GPU's."""

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
EXHAUSTED = ("can't allocate memory", "not enough memory", "out of memory")
"""What torch says in a plain ``RuntimeError``."""


def free_memory(proc: Path = PROC, cgroups: Path = CGROUPS) -> float | None:
    """Bytes of main memory that a new process could take; None where the system does not say.

    The kernel's estimate, which counts what it would give back of its caches, or what is left of a
    container's or a job's own limit.
    """
    left = [*_available(proc), *_left_of_limits(proc, cgroups)]
    return min(left) if left else None


def free_gpu_memory(device: object) -> float:
    """Bytes of a GPU that are free, or this process's to use again."""
    import torch

    free, _ = torch.cuda.mem_get_info(device)  # type: ignore[arg-type]
    reserved = torch.cuda.memory_reserved(device)  # type: ignore[arg-type]
    return float(free + reserved - torch.cuda.memory_allocated(device))  # type: ignore[arg-type]


def _available(proc: Path) -> Iterator[float]:
    try:
        lines = (proc / "meminfo").read_text().splitlines()
    except OSError:
        try:  # not Linux: all there is, used or not
            yield float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        except (AttributeError, OSError, ValueError):
            return
        return
    for line in lines:
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            yield 1024.0 * int(value.split()[0])


def _left_of_limits(proc: Path, cgroups: Path) -> Iterator[float]:
    """What is left of the limits of this process's control groups and of those above."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
            root, names = cgroups, ("memory.max", "memory.current")
            cached = "inactive_file"
        elif "memory" in controllers.split(","):
            root, names = cgroups / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
            cached = "total_inactive_file"
        else:
            continue
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            left = _left(folder, *names, cached)
            if left is not None:
                yield left
            if folder == root:
                break


def _left(folder: Path, limit: str, used: str, cached: str) -> float | None:
    """What is left of one group's limit, caches of files not counted; None without one."""
    try:
        most = int((folder / limit).read_text())  # "max" is no number: no limit
        now = int((folder / used).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return float(max(0, most - now + int(stat.get(cached, 0))))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that there was no memory left, on whatever device."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    told = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in told for words in EXHAUSTED)


# --- keep freed memory: every step needs the same again, and getting it from the system is slow ---

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4
"""Parameters of glibc's mallopt(3)."""

KEPT = ((MMAP_MAX, 0), (TRIM_THRESHOLD, -1), (TOP_PAD, 64 << 20))
USUAL = (
    (MMAP_MAX, 65536),
    (MMAP_THRESHOLD, 32 << 20),
    (TRIM_THRESHOLD, 64 << 20),
    (TOP_PAD, 128 << 10),
)
"""What glibc comes to by itself, once large pieces have been freed."""


def keep_memory(keep: bool = True) -> bool:
    """Let this process hold on to what it frees; whether the C library can do that.

    A step's large tensors would otherwise be mapped, faulted in page by page, and given back, each
    time. To be called before they are made. Elsewhere than on glibc nothing happens.

    Args:
        keep: False: behave as usual again; what is held stays held until it is freed again.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has no mallopt
        return False
    done = [mallopt(*setting) for setting in (KEPT if keep else USUAL)]  # all, whatever one says
    return all(done)
