"""Training images without labels: a transfer set in place of the training set.

Source: Bucila, Caruana, Niculescu-Mizil, Model Compression, KDD 2006; unlabelled images, or noise,
instead of its synthetic samples.
"""

from pathlib import Path

import torch
from torch import Tensor

from kdbench.data.readers.base import resize
from kdbench.data.readers.by_name import reader
from kdbench.data.readers.image_folder import unlabelled
from kdbench.grid.settings import Dataset
from kdbench.grid.transfer_set import NOISE, TransferSet
from kdbench.rng import generator

NO_LABEL = -100
"""Stands for the label that an image does not have; no class, and ignored by torch's losses."""


def read(
    transfer: TransferSet, root: Path, *, size: int, channels: int, count: int, seed: int
) -> Tensor:
    """Return the images of a transfer set, uint8 [N, size, size, channels].

    Args:
        transfer: the images.
        root: folder of all data sets.
        size: height and width to resize to.
        channels: 1 or 3; colours are turned to grey, and grey values to RGB.
        count: number of noise images, unless the transfer set has one.
        seed: of noise.

    Raises:
        DataError, OSError: files are missing or damaged.
    """
    if transfer.name == NOISE:
        shape = (transfer.images or count, size, size, channels)
        stream = generator(seed, "transfer noise")
        return torch.randint(256, shape, generator=stream, dtype=torch.uint8)
    if transfer.name == "imagefolder":
        images = unlabelled(Path(transfer.root or "").expanduser(), size, root)
    else:
        source = Dataset(name=transfer.name, size=size)
        images = reader(transfer.name)(source, root).train.images
    return in_channels(resize(images, size), channels)


def in_channels(images: Tensor, channels: int) -> Tensor:
    """Turn grey images to RGB or the reverse, by the luma of ITU-R BT.601; uint8 [N, H, W, C]."""
    if images.shape[3] == channels:
        return images
    if channels == 3:
        return images.expand(-1, -1, -1, 3).contiguous()
    weights = torch.tensor([299, 587, 114])  # whole numbers, so equal on any machine
    grey = [(part.int() * weights).sum(3, keepdim=True) for part in images.split(4096)]
    return ((torch.cat(grey) + 500) // 1000).to(torch.uint8)
