"""Keep freed memory: every step needs the same again, and getting it from the system is slow."""

import ctypes
import sys

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
