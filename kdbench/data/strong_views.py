"""Strongly augmented views of training images: two random operations and a cutout.

All random numbers are drawn from (seed, purpose, epoch) alone, from a stream that no other
augmentation uses. The operations run on the CPU, image by image, so that a view is the same on any
device.

Source: the augmentation of Jin, Wang, Lin, "Multi-Level Logit Distillation", CVPR 2023: FixMatch's
operations (Sohn et al., NeurIPS 2020, arXiv:2001.07685) with strengths drawn uniformly.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kdbench.data.batches import Normalise, all_crops
from kdbench.data.dataset import LoadedData
from kdbench.rng import generator

GREY = (125, 123, 114)
"""Colour of a cutout; an image of another number of channels gets the mean."""


class Operation(NamedTuple):
    """A random operation on an image.

    Attributes:
        name: of the operation.
        low: least strength.
        high: bound of the strength.
        apply: torchvision's functions, an image [C, H, W] in uint8, and a strength, to an image.
    """

    name: str
    low: float
    high: float
    apply: Callable[[Any, Tensor, float], Tensor]


def _shear(F: Any, x: Tensor, along: float, down: float) -> Tensor:
    """Shear about the first pixel; the strengths are tangents of the angles."""
    angles = [math.degrees(math.atan(along)), math.degrees(math.atan(down))]
    return _tensor(F.affine(x, 0.0, [0.0, 0.0], 1.0, angles, center=[0.0, 0.0]))


def _translate(F: Any, x: Tensor, along: float, down: float) -> Tensor:
    """Translate by shares of the image."""
    by = [along * x.shape[2], down * x.shape[1]]
    return _tensor(F.affine(x, 0.0, by, 1.0, [0.0, 0.0]))


def _tensor(x: Any) -> Tensor:
    assert isinstance(x, Tensor)
    return x


OPERATIONS = (
    Operation("autocontrast", 0.0, 1.0, lambda F, x, _: _tensor(F.autocontrast(x))),
    Operation("brightness", 0.05, 0.95, lambda F, x, v: _tensor(F.adjust_brightness(x, v))),
    Operation("colour", 0.05, 0.95, lambda F, x, v: _tensor(F.adjust_saturation(x, v))),
    Operation("contrast", 0.05, 0.95, lambda F, x, v: _tensor(F.adjust_contrast(x, v))),
    Operation("equalise", 0.0, 1.0, lambda F, x, _: _tensor(F.equalize(x))),
    Operation("identity", 0.0, 1.0, lambda F, x, _: x),
    Operation("posterise", 4.0, 8.0, lambda F, x, v: _tensor(F.posterize(x, int(v)))),
    Operation("rotate", -30.0, 30.0, lambda F, x, v: _tensor(F.rotate(x, v))),
    Operation("sharpness", 0.05, 0.95, lambda F, x, v: _tensor(F.adjust_sharpness(x, v))),
    Operation("shear x", -0.3, 0.3, lambda F, x, v: _shear(F, x, v, 0.0)),
    Operation("shear y", -0.3, 0.3, lambda F, x, v: _shear(F, x, 0.0, v)),
    Operation("solarise", 0.0, 256.0, lambda F, x, v: _tensor(F.solarize(x, int(v)))),
    Operation("translate x", -0.3, 0.3, lambda F, x, v: _translate(F, x, v, 0.0)),
    Operation("translate y", -0.3, 0.3, lambda F, x, v: _translate(F, x, 0.0, v)),
)
"""Operations, of which each view of an image gets two, drawn with replacement.

Geometric ones take the nearest pixel, and fill with black. Bits and thresholds are rounded down.
"""


class StrongDraws(NamedTuple):
    """Random numbers of an epoch, in the order of its samples; shares are in [0, 1).

    Attributes:
        order: positions in the training set, [N].
        offsets: top and left of each sample's crop in the padded image, [N, 2].
        mirrored: whether a sample is mirrored, bool [N].
        operations: indices into ``OPERATIONS``, [N, 2].
        strengths: shares of the ranges of their strengths, [N, 2].
        cutouts: share of the largest side, and place of the centre, [N, 3].
    """

    order: Tensor
    offsets: Tensor
    mirrored: Tensor
    operations: Tensor
    strengths: Tensor
    cutouts: Tensor


def drawn(
    n: int, seed: int, epoch: int, purpose: str, crop_pad: int, number: int = 0
) -> StrongDraws:
    """Draw the strong view ``number`` of each of n images, independent of the epoch's order."""
    order = torch.randperm(n, generator=generator(seed, "order", purpose, epoch))
    stream = generator(seed, "augment", "strong", purpose, epoch, number)
    mirrored = torch.rand(n, generator=stream) < 0.5
    offsets = torch.randint(0, 2 * crop_pad + 1, (n, 2), generator=stream)
    operations = torch.randint(0, len(OPERATIONS), (n, 2), generator=stream)
    strengths = torch.rand(n, 2, generator=stream)
    cutouts = torch.rand(n, 3, generator=stream)
    draws = (offsets, mirrored, operations, strengths, cutouts)
    return StrongDraws(order, *(x[order] for x in draws))


def operated(x: Tensor, operation: int, share: float) -> Tensor:
    """Apply one of ``OPERATIONS`` to an image in uint8, [C, H, W]; ``share`` is of its range."""
    from torchvision.transforms.v2 import functional  # slow to import

    _, low, high, apply = OPERATIONS[operation]
    return apply(functional, x, low + (high - low) * share)


def cut_out(x: Tensor, side: float, left: float, top: float) -> None:
    """Fill a square of an image in uint8, [C, H, W], with grey; parts outside are lost.

    Args:
        x: the image, which is changed.
        side: share of half the image's width.
        left: place of the square's centre, as a share of the width.
        top: place of its centre, as a share of the height.
    """
    c, height, width = x.shape
    length = side * width / 2
    begin = [int(max(0.0, at * n - length / 2)) for at, n in ((top, height), (left, width))]
    rows, columns = (slice(i, i + int(length) + 1) for i in begin)
    colour = GREY if c == len(GREY) else (round(sum(GREY) / len(GREY)),) * c
    x[:, rows, columns] = torch.tensor(colour, dtype=torch.uint8)[:, None, None]


class StrongViews:
    """Makes strong views of the batches of ``train_batches``, in any order.

    Args:
        data: the data set.
        batch_size: B.
        seed: seed of the run.
        crop_pad: as for ``train_batches``.
        flip: likewise.
        channels_last: memory format of the images.
        dtype: type of the images.
    """

    def __init__(
        self,
        data: LoadedData,
        *,
        batch_size: int,
        seed: int,
        crop_pad: int,
        flip: bool,
        channels_last: bool = True,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.batch_size, self.seed, self.crop_pad, self.flip = batch_size, seed, crop_pad, flip
        on_host = data
        if data.train_images.device.type != "cpu":
            on_host = replace(data, train_images=data.train_images.cpu(), _padded={})
        self.device = data.train_images.device
        self.crops, self.size = all_crops(on_host, crop_pad), data.size
        self.normalise = Normalise(data, channels_last, dtype)
        self.n, self.width = len(data.train_labels), data.size + 2 * crop_pad
        self._draws: dict[int, tuple[tuple[str, int], StrongDraws]] = {}

    def __call__(self, purpose: str, epoch: int, step: int, number: int = 0) -> Tensor:
        """Return a view of a batch, [B, C, H, W] on the device of the data.

        Args:
            purpose: as for ``train_batches``.
            epoch: from 1.
            step: in the epoch, from 0.
            number: of the strong view.
        """
        known = self._draws.get(number)
        if known is None or known[0] != (purpose, epoch):
            draws = drawn(self.n, self.seed, epoch, purpose, self.crop_pad, number)
            known = self._draws[number] = ((purpose, epoch), draws)
        part = slice(step * self.batch_size, (step + 1) * self.batch_size)
        images = self.in_uint8(StrongDraws(*(x[part] for x in known[1])))
        return self.normalise(images.permute(0, 2, 3, 1).contiguous().to(self.device))

    def in_uint8(self, draws: StrongDraws) -> Tensor:
        """Return the views of some samples in uint8, [B, C, H, W]."""
        top, left = draws.offsets.unbind(1)
        first = (draws.order * self.width + top) * self.width + left
        images = self.crops.index_select(0, first).unflatten(2, (self.size, -1))
        images = images.permute(0, 3, 1, 2).contiguous()
        if self.flip:
            images = torch.where(draws.mirrored[:, None, None, None], images.flip(3), images)
        operations, strengths, cutouts = (
            x.tolist() for x in (draws.operations, draws.strengths, draws.cutouts)
        )
        views = []
        for i, x in enumerate(images):
            for operation, share in zip(operations[i], strengths[i], strict=True):
                x = operated(x, operation, share)
            x = x.clone()  # an operation may return its input
            cut_out(x, *cutouts[i])
            views.append(x)
        return torch.stack(views)
