"""Strong views: two operations and a cutout, from a random stream of their own."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from kdbench.cost.counting import DataShape
from kdbench.cost.speed import noise
from kdbench.data.batches import train_batches
from kdbench.data.dataset import LoadedData
from kdbench.data.strong_views import (
    OPERATIONS,
    StrongDraws,
    StrongViews,
    cut_out,
    drawn,
    operated,
)

BY_NAME = {operation.name: i for i, operation in enumerate(OPERATIONS)}
IDENTITY = BY_NAME["identity"]


def data(channels: int = 3, size: int = 8, n: int = 40) -> LoadedData:
    torch.manual_seed(0)
    return noise(DataShape(channels, size, 10, n, n), n)


def views_of(loaded: LoadedData, *, crop_pad: int = 2, flip: bool = True) -> StrongViews:
    return StrongViews(loaded, batch_size=8, seed=3, crop_pad=crop_pad, flip=flip)


def image(channels: int = 3, size: int = 32) -> Tensor:
    """Return a smooth image of many values, [C, H, W], in uint8."""
    ramp = torch.linspace(40, 200, size)
    waves = 8 * torch.sin(ramp / 10)[:, None] + 8 * torch.cos(ramp / 8)
    planes = [ramp[:, None] * 0.5 + ramp * (0.1 + 0.2 * i) + waves for i in range(channels)]
    return torch.stack(planes).clamp(0, 255).to(torch.uint8)


def as_pil(x: Tensor) -> Image.Image:
    return Image.fromarray(x.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("shape", [(3, 32), (1, 8), (3, 9)])
def test_views_depend_on_seed_purpose_epoch_and_position_only(shape: tuple[int, int]) -> None:
    loaded = data(*shape)
    views, again = views_of(loaded), views_of(loaded)
    in_order = [views("train", 2, step) for step in range(5)]
    for step in (4, 1, 3):
        assert torch.equal(again("train", 2, step), in_order[step])
    assert in_order[0].shape == (8, shape[0], shape[1], shape[1])
    others = [views("train", 3, 0), views("pretrain", 2, 0), views("train", 2, 0, 1)]
    other_seed = StrongViews(loaded, batch_size=8, seed=4, crop_pad=2, flip=True)
    for other in (*others, other_seed("train", 2, 0)):
        assert not torch.equal(other, in_order[0])
    assert torch.equal(views("train", 2, 0), in_order[0])


def test_views_show_the_images_of_the_batch() -> None:
    loaded = data(size=16)
    draws = drawn(40, 3, 1, "train", 0)
    batches = train_batches(loaded, batch_size=8, seed=3, epoch=1, crop_pad=0, flip=False)
    views = views_of(loaded, crop_pad=0, flip=False)
    for step, (_, _, index) in enumerate(batches):
        part = StrongDraws(*(x[step * 8 : step * 8 + 8] for x in draws))
        assert torch.equal(part.order, index)
        plain = part._replace(
            operations=torch.full((8, 2), IDENTITY), cutouts=torch.tensor([[0.0, 0.0, 0.0]] * 8)
        )
        seen = views.in_uint8(plain)
        expected = loaded.train_images[index].permute(0, 3, 1, 2)
        assert torch.equal(seen[:, :, 1:], expected[:, :, 1:])  # the least cutout is a pixel
        assert torch.equal(seen[:, :, 0, 1:], expected[:, :, 0, 1:])


def test_crops_and_flips_are_drawn_apart_from_those_of_the_weak_view() -> None:
    loaded = data(size=16)
    views = views_of(loaded)
    plain = drawn(40, 3, 1, "train", 2)._replace(
        operations=torch.full((40, 2), IDENTITY), cutouts=torch.zeros(40, 3)
    )
    mirrored = views.in_uint8(plain._replace(mirrored=~plain.mirrored))
    seen = views.in_uint8(plain)
    assert torch.equal(mirrored[:, :, 1:], seen[:, :, 1:].flip(3))
    assert {tuple(x) for x in plain.offsets.tolist()} > {(0, 0), (4, 4)}
    assert 5 < int(plain.mirrored.sum()) < 35


def test_epoch_uses_every_operation_and_two_of_them_for_each_image() -> None:
    draws = drawn(2000, 0, 1, "train", 4)
    counts = torch.bincount(draws.operations.flatten(), minlength=len(OPERATIONS))
    assert len(OPERATIONS) == 14
    assert counts.min() > 200
    assert 0 <= draws.strengths.min() < 0.01 and 0.99 < draws.strengths.max() < 1


@pytest.mark.parametrize("number", range(len(OPERATIONS)), ids=[o.name for o in OPERATIONS])
@pytest.mark.parametrize("channels", [1, 3])
def test_operation_keeps_shape_type_and_input(number: int, channels: int) -> None:
    for size in (8, 32):
        x = image(channels, size)
        before = x.clone()
        seen = [operated(x, number, share) for share in (0.0, 0.3, 0.999)]
        assert torch.equal(x, before)
        for y in seen:
            assert y.dtype == torch.uint8 and y.shape == x.shape
        same = all(torch.equal(x, y) for y in seen)
        if size == 8 and number == BY_NAME["equalise"]:
            continue  # fewer pixels than values: torchvision, as PIL, leaves them as they are
        # A grey image has no colour to change.
        assert same == (number == IDENTITY or (number == BY_NAME["colour"] and channels == 1))


PIL = {
    "autocontrast": lambda x, v: ImageOps.autocontrast(x),
    "brightness": lambda x, v: ImageEnhance.Brightness(x).enhance(v),
    "colour": lambda x, v: ImageEnhance.Color(x).enhance(v),
    "contrast": lambda x, v: ImageEnhance.Contrast(x).enhance(v),
    "equalise": lambda x, v: ImageOps.equalize(x),
    "posterise": lambda x, v: ImageOps.posterize(x, int(v)),
    "rotate": lambda x, v: x.rotate(v),
    "sharpness": lambda x, v: ImageEnhance.Sharpness(x).enhance(v),
    "shear x": lambda x, v: x.transform(x.size, Image.Transform.AFFINE, (1, v, 0, 0, 1, 0)),
    "shear y": lambda x, v: x.transform(x.size, Image.Transform.AFFINE, (1, 0, 0, v, 1, 0)),
    "solarise": lambda x, v: ImageOps.solarize(x, int(v)),
    "translate x": lambda x, v: x.transform(
        x.size, Image.Transform.AFFINE, (1, 0, v * x.size[0], 0, 1, 0)
    ),
    "translate y": lambda x, v: x.transform(
        x.size, Image.Transform.AFFINE, (1, 0, 0, 0, 1, v * x.size[1])
    ),
}
"""The operations of the authors' library."""
OPPOSITE = {"translate x", "translate y"}
"""Operations whose strength has the other sign in PIL; the range is symmetrical."""
GEOMETRIC = {"rotate", "shear x", "shear y", *OPPOSITE}


@pytest.mark.parametrize("name", PIL)
def test_operation_is_that_of_pil(name: str) -> None:
    x, operation = image(), OPERATIONS[BY_NAME[name]]
    for share in (0.1, 0.4, 0.9):
        strength = operation.low + share * (operation.high - operation.low)
        seen = operated(x, BY_NAME[name], share).permute(1, 2, 0).numpy().astype(int)
        sign = -1 if name in OPPOSITE else 1
        expected = np.asarray(PIL[name](as_pil(x), sign * strength)).astype(int)
        # Pixels may round to another neighbour, or to the next value.
        wrong = (np.abs(seen - expected) > 2).mean()
        assert wrong < (0.12 if name in GEOMETRIC else 0.01), (share, wrong)


@pytest.mark.parametrize(("channels", "colour"), [(3, [125, 123, 114]), (1, [121])])
def test_cutout_is_a_grey_square(channels: int, colour: list[int]) -> None:
    x = torch.full((channels, 20, 20), 7, dtype=torch.uint8)
    cut_out(x, 0.5, 0.5, 0.4)  # side 5, centre (10, 8)
    expected = torch.full_like(x, 7)
    expected[:, 5:11, 7:13] = torch.tensor(colour, dtype=torch.uint8)[:, None, None]
    assert torch.equal(x, expected)


def test_cutout_covers_at_most_half_of_each_side_and_stays_inside() -> None:
    for side, left, top in torch.rand(200, 3, generator=torch.Generator().manual_seed(0)).tolist():
        x = torch.zeros(3, 8, 8, dtype=torch.uint8)
        cut_out(x, side, left, top)
        rows, columns = (x[0] > 0).any(1).sum(), (x[0] > 0).any(0).sum()
        assert 1 <= rows <= 4 and 1 <= columns <= 4
        assert torch.equal(x[0] > 0, (x[0] > 0).any(1)[:, None] & (x[0] > 0).any(0))
