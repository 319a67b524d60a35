"""Memory of this machine: how much is free, errors when it runs out, and keeping freed memory.

Only the functions about a GPU import torch.
"""

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
"""Messages of torch's plain ``RuntimeError`` if memory runs out."""

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4
"""Parameters of glibc's mallopt(3)."""
KEEPING = ((MMAP_MAX, 0), (TRIM_THRESHOLD, -1), (TOP_PAD, 64 << 20))
DEFAULT = (
    (MMAP_MAX, 65536),
    (MMAP_THRESHOLD, 32 << 20),
    (TRIM_THRESHOLD, 64 << 20),
    (TOP_PAD, 128 << 10),
)
"""Values that glibc's own adjustment reaches once large blocks have been freed."""


# -- free memory ---------------------------------------------------------------------------


def free_memory(proc: Path = PROC, cgroups: Path = CGROUPS) -> float | None:
    """Return the bytes of main memory that a new process could use; None if unknown.

    That is the kernel's estimate, which includes caches it could free, or the rest of a
    container's or job's limit, whichever is smaller.
    """
    amounts = [*_available(proc), *_left_of_limits(proc, cgroups)]
    return min(amounts) if amounts else None


def free_gpu_memory(device: object) -> float:
    """Return the bytes of a GPU that are free, or cached by this process for reuse."""
    import torch

    free, _ = torch.cuda.mem_get_info(device)  # type: ignore[arg-type]
    reserved = torch.cuda.memory_reserved(device)  # type: ignore[arg-type]
    return float(free + reserved - torch.cuda.memory_allocated(device))  # type: ignore[arg-type]


def _available(proc: Path) -> Iterator[float]:
    """Yield the kernel's estimate of available memory, if there is one."""
    try:
        lines = (proc / "meminfo").read_text().splitlines()
    except OSError:
        try:  # not Linux: the whole main memory, used or not
            yield float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        except (AttributeError, OSError, ValueError):
            return
        return
    for line in lines:
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            yield 1024.0 * int(value.split()[0])


def _left_of_limits(proc: Path, cgroups: Path) -> Iterator[float]:
    """Yield the rest of each limit of this process's control groups and their parents."""
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
    """Return the rest of one group's limit, not counting file caches; None without a limit."""
    try:
        limit_bytes = int((folder / limit).read_text())  # "max", no number: no limit
        used_bytes = int((folder / used).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return float(max(0, limit_bytes - used_bytes + int(stat.get(cached, 0))))


# -- running out of memory ------------------------------------------------------------------


def is_out_of_memory(error: BaseException) -> bool:
    """Check whether an exception means that memory ran out, on any device."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    message = str(error).lower()
    return isinstance(error, RuntimeError) and any(text in message for text in OUT_OF_MEMORY)


def release_gpu_memory(device: "torch.device") -> None:
    """Return memory that torch keeps for reuse to a GPU; nothing on a CPU.

    Blocks of another size are of no use to the learners and processes that go on. Call it when
    memory has run out, and after the exception is gone, because its traceback holds tensors.
    """
    if device.type == "cuda":
        import torch

        gc.collect()
        torch.cuda.empty_cache()


# -- keeping freed memory -------------------------------------------------------------------


def keep_memory(keep: bool = True) -> bool:
    """Make this process keep memory that it frees; return whether the C library can do that.

    Every step needs the same large tensors. Without this, their memory would be mapped, faulted in
    page by page, and returned to the system in each step. Call this before large tensors are
    created. It has no effect without glibc.

    Args:
        keep: False restores the usual behaviour; memory already kept stays until freed again.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has no mallopt
        return False
    results = [mallopt(*setting) for setting in (KEEPING if keep else DEFAULT)]  # all, in any case
    return all(results)
