"""Types and functions of all readers: splits, seeded class-balanced draws, errors."""

import pickle
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kdbench.errors import UserError
from kdbench.files import sweep, write_atomically
from kdbench.rng import generator

UNREADABLE = (
    *(OSError, EOFError, ValueError, KeyError, IndexError, TypeError, AssertionError, SyntaxError),
    *(RuntimeError, pickle.UnpicklingError, zlib.error, zipfile.BadZipFile),
)
"""Exceptions of decoders on damaged files."""


class DataError(UserError):
    """Data are missing, damaged or too few; the message says what to do."""


class Split(NamedTuple):
    """Images, uint8 [N, H, W, C], and their labels, int64 [N]."""

    images: Tensor
    labels: Tensor

    def take(self, index: Tensor) -> "Split":
        """Return the samples at these positions."""
        return Split(self.images[index], self.labels[index])


class DataSource(NamedTuple):
    """A complete data set as read from its files."""

    train: Split
    test: Split
    classes: tuple[str, ...]


def draw(
    labels: Tensor,
    wanted: Sequence[int],
    seed: int,
    purpose: str,
    classes: Sequence[str],
    spare: int = 0,
) -> tuple[Tensor, Tensor]:
    """Draw ``wanted[k]`` samples of each class k.

    A smaller draw with the same seed is a subset of a larger one.

    Returns:
        Positions of the drawn samples and of the other samples, both ascending.

    Raises:
        DataError: a class has fewer than ``wanted[k] + spare`` samples.
    """
    drawn = torch.zeros(len(labels), dtype=torch.bool)
    for k, count in enumerate(wanted):
        members = (labels == k).nonzero()[:, 0]
        if len(members) < count + spare:
            raise DataError(
                f"class {classes[k]!r} has {len(members)} images: cannot draw {count} of them"
                + (f" for {purpose} and leave {spare}" if spare else f" for the {purpose}")
            )
        drawn[
            members[torch.randperm(len(members), generator=generator(seed, purpose, k))[:count]]
        ] = True
    return drawn.nonzero()[:, 0], (~drawn).nonzero()[:, 0]


def resize(images: Tensor, size: int) -> Tensor:
    """Resize [N, H, W, C] -> [N, size, size, C] by antialiased bilinear interpolation."""
    from torchvision.transforms.v2.functional import resize as interpolate

    if images.shape[1:3] == (size, size):
        return images
    parts = [
        interpolate(part.permute(0, 3, 1, 2), [size, size], antialias=True).permute(0, 2, 3, 1)
        for part in images.split(1024)
    ]
    return torch.cat(parts).contiguous()


def write(path: Path, content: bytes | np.ndarray) -> None:
    """Write a file, or an .npz with one array ``images``, atomically."""
    sweep(path.parent)
    if isinstance(content, bytes):
        write_atomically(path, content)
    else:
        write_atomically(path, lambda file: np.savez(file, images=content))


def line(error: BaseException) -> str:
    """Format an error in one line."""
    return " ".join(str(error).split()) or type(error).__name__
