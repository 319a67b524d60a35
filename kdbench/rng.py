"""Stateless randomness: one random generator for each purpose.

Wherever numbers are drawn, a new generator is made from ``(seed, purpose, ...)``. So resuming needs
no saved state, and no method can consume the random numbers of another: methods are compared on the
same initial weights, data order and augmentation.
"""

import hashlib

import torch


def key(seed: int, *purpose: str | int) -> int:
    """Return a 63-bit hash of ``seed`` and ``purpose``, the same on every machine."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a CPU generator for one purpose, e.g. ``generator(0, "order", epoch)``."""
    return torch.Generator().manual_seed(key(seed, *purpose))
