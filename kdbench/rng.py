"""Stateless randomness: every draw comes from a generator named by what it is for.

A generator is made anew from ``(seed, purpose, ...)`` wherever numbers are drawn, so nothing has to
be saved to resume, and no method can consume another's stream: methods are compared on the same
initial weights, data order and augmentation.
"""

import hashlib

import torch


def key(seed: int, *purpose: str | int) -> int:
    """A 63-bit number that depends on all of ``seed`` and ``purpose``, the same on any machine."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator for one purpose, e.g. ``generator(0, "order", epoch)``."""
    return torch.Generator().manual_seed(key(seed, *purpose))
