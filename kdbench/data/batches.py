"""Batches of a data set on its device: shuffled, cropped, flipped, normalised.

All random numbers of an epoch are drawn on the CPU from (seed, purpose, epoch) alone, so a batch is
the same on any device, also if the batches before it were skipped.
"""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from kdbench.data.dataset import LoadedData
from kdbench.data.readers.base import DataError
from kdbench.rng import generator


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Count the batches of an epoch over n samples; the last, smaller batch is dropped."""
    if n < batch_size:
        raise DataError(f"batch_size {batch_size} is larger than the training set of {n} images")
    return n // batch_size


def train_batches(
    data: LoadedData,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    purpose: str = "train",
    crop_pad: int = 0,
    flip: bool = False,
    start_step: int = 0,
    channels_last: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield the batches of an epoch, on the device of the data.

    Args:
        data: the data set.
        batch_size: B; the last, smaller batch is dropped.
        seed: seed of the run.
        epoch: number of the epoch, from 1.
        purpose: name of the random stream; different phases use different streams.
        crop_pad: zero-pad by this many pixels and crop at random; 0: no crop.
        flip: mirror half of the images.
        start_step: first batch; earlier batches are skipped.
        channels_last: memory format of the images.
        dtype: type of the images.

    Returns:
        Iterator over images [B, C, H, W], labels [B] and positions in the training set [B].

    Raises:
        DataError: there are fewer images than ``batch_size``.
    """
    rows = epoch_rows(data, batch_size, seed, epoch, purpose, crop_pad)
    make = BatchMaker(data, crop_pad, flip, channels_last, dtype)
    return map(make, rows[start_step:])


def epoch_rows(
    data: LoadedData, batch_size: int, seed: int, epoch: int, purpose: str, crop_pad: int
) -> Tensor:
    """Draw the batches of an epoch, and return them as positions on the device of the data.

    Returns:
        [steps, 3, B], int64: for each sample the position of its crop's first pixel among those
        of ``all_crops``, its place among B images and their B mirror images, and its position in
        the training set.

    Raises:
        DataError: there are fewer images than ``batch_size``.
    """
    steps = steps_per_epoch(len(data.train_labels), batch_size)
    draws = drawn(len(data.train_labels), seed, epoch, purpose, crop_pad)
    width = data.size + 2 * crop_pad
    top, left = draws.offsets.unbind(1)
    first = (draws.order * width + top) * width + left
    version = torch.arange(len(draws.order)) % batch_size + batch_size * draws.mirrored
    rows = torch.stack((first, version, draws.order))[:, : steps * batch_size]
    rows = rows.unflatten(1, (steps, batch_size)).transpose(0, 1).contiguous()
    return rows.to(data.train_labels.device)


class BatchMaker:
    """Makes batches from rows of ``epoch_rows``; its tensors stay the same in all epochs."""

    def __init__(
        self,
        data: LoadedData,
        crop_pad: int,
        flip: bool,
        channels_last: bool = True,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.labels, self.flip = data.train_labels, flip
        self.normalise = Normalise(data, channels_last, dtype)
        self.crops, self.size = all_crops(data, crop_pad), data.size

    def __call__(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return images [B, C, H, W], labels [B] and positions [B] of ``rows``, [3, B]."""
        first, version, index = rows.unbind(0)
        images = self.crops.index_select(0, first).unflatten(2, (self.size, -1))  # [B, H, W, C]
        if self.flip:
            images = torch.cat((images, images.flip(2))).index_select(0, version)
        return self.normalise(images), self.labels.index_select(0, index), index


class Draws(NamedTuple):
    """Random numbers of an epoch, in the order of its samples.

    Attributes:
        order: positions in the training set, [N].
        offsets: top and left of each sample's crop in the padded image, [N, 2].
        mirrored: whether a sample is mirrored, bool [N].
    """

    order: Tensor
    offsets: Tensor
    mirrored: Tensor


def drawn(n: int, seed: int, epoch: int, purpose: str, crop_pad: int) -> Draws:
    """Draw the order of an epoch, and a crop and flip per sample, independent of the order."""
    order = torch.randperm(n, generator=generator(seed, "order", purpose, epoch))
    stream = generator(seed, "augment", purpose, epoch)
    mirrored = torch.rand(n, generator=stream) < 0.5
    offsets = torch.randint(0, 2 * crop_pad + 1, (n, 2), generator=stream)
    return Draws(order, offsets[order], mirrored[order])


def all_crops(data: LoadedData, crop_pad: int) -> Tensor:
    """Return a view of all crops, [P, H, W * C], indexed by the position of the first pixel.

    One ``index_select`` on this view copies complete rows of pixels. This is several times as fast
    as indexing with rows and columns.
    """
    padded = data.padded(crop_pad)
    n, width, _, c = padded.shape
    count = n * width**2 - (data.size - 1) * (width + 1)
    return padded.as_strided((count, data.size, data.size * c), (c, width * c, 1))


class Normalise:
    """Normalisation, uint8 [B, H, W, C] -> [B, C, H, W] of mean 0 and deviation 1 per channel."""

    def __init__(
        self, data: LoadedData, channels_last: bool = True, dtype: torch.dtype = torch.float32
    ) -> None:
        std = torch.tensor(data.std, dtype=torch.float64)
        mean = torch.tensor(data.mean, dtype=torch.float64)
        shape = data.train_images.shape[1:]  # expanded, because broadcasting over 3 values is slow

        def wide(values: Tensor) -> Tensor:
            return values.float().expand(shape).contiguous().to(data.train_images.device)

        self.scale, self.shift = wide(1 / (255 * std)), wide(-mean / std)
        self.channels_last = channels_last
        self.dtype = dtype

    def __call__(self, images: Tensor) -> Tensor:
        """Normalise images. Multiplying and adding round separately: equal bits on any device."""
        scaled = images.float().mul_(self.scale).add_(self.shift).to(self.dtype)
        scaled = scaled.permute(0, 3, 1, 2)
        return scaled if self.channels_last else scaled.contiguous()


def eval_batches(
    images: Tensor,
    labels: Tensor,
    data: LoadedData,
    batch_size: int,
    *,
    rank: int = 0,
    ranks: int = 1,
    channels_last: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield all samples in order: normalised images [B, C, H, W], and labels [B].

    The last batch may be smaller. Each of several ``ranks`` gets every ``ranks``-th batch, from
    batch ``rank`` on.
    """
    normalise = Normalise(data, channels_last, dtype)
    parts = zip(images.split(batch_size), labels.split(batch_size), strict=True)
    for some_images, some_labels in islice(parts, rank, None, ranks):
        yield normalise(some_images), some_labels
