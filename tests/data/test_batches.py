from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as TF

from kdbench.data.batches import drawn, eval_batches, steps_per_epoch, train_batches
from kdbench.data.dataset import LoadedData, load
from kdbench.data.readers.base import DataError
from kdbench.grid.settings import Dataset


def random_data(n: int = 50, size: int = 12, channels: int = 3) -> LoadedData:
    """Return random images of three classes."""
    stream = torch.Generator().manual_seed(n)
    images = torch.randint(0, 256, (n, size, size, channels), dtype=torch.uint8, generator=stream)
    labels = torch.randint(0, 3, (n,), generator=stream)
    mean, std = (0.5, 0.4, 0.3)[:channels], (0.2, 0.3, 0.25)[:channels]
    return LoadedData(
        "synthetic", "noise", ("a", "b", "c"), images, labels, images, labels, None, None,
        mean, std, "",
    )  # fmt: skip


def plain(image: Tensor, data: LoadedData, pad: int, top: int, left: int, mirror: bool) -> Tensor:
    """Apply torchvision's RandomCrop(padding), flip, ToTensor and Normalize with given draws."""
    array = image.numpy()
    picture = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
    picture = TF.crop(TF.pad(picture, pad, fill=0), top, left, data.size, data.size)
    if mirror:
        picture = TF.hflip(picture)
    return TF.normalize(TF.to_tensor(picture), data.mean, data.std)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("pad", "flip"), [(0, False), (0, True), (1, False), (4, True)])
def test_augmentation_equals_torchvisions(channels: int, pad: int, flip: bool) -> None:
    data = random_data(channels=channels)
    draws = drawn(50, 3, 2, "train", pad)
    assert draws.offsets.min() >= 0
    assert draws.offsets.max() == 2 * pad
    assert 10 < draws.mirrored.sum() < 40
    batches = train_batches(data, batch_size=8, seed=3, epoch=2, crop_pad=pad, flip=flip)
    place = 0
    for images, labels, index in batches:
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert images.dtype == torch.float32
        for image, label, i in zip(images, labels, index.tolist(), strict=True):
            top, left = draws.offsets[place].tolist()
            mirror = flip and bool(draws.mirrored[place])
            expected = plain(data.train_images[i], data, pad, top, left, mirror)
            torch.testing.assert_close(image, expected, rtol=0, atol=1e-6)
            assert label == data.train_labels[i]
            place += 1
    assert place == 48


def test_padding_is_black_before_normalisation() -> None:
    data = random_data()
    images, _, _ = next(train_batches(data, batch_size=50, seed=0, epoch=1, crop_pad=12))
    black = -torch.tensor(data.mean) / torch.tensor(data.std)
    corners = torch.stack([images[:, :, 0, 0], images[:, :, -1, -1]])
    framed = (corners - black).abs().amax(2) < 1e-6
    assert framed.any(0).float().mean() > 0.9  # a crop that is not the image itself


def take(data: LoadedData, **options: object) -> list[tuple[Tensor, Tensor, Tensor]]:
    arguments: dict[str, object] = {
        "batch_size": 8,
        "seed": 0,
        "epoch": 1,
        "crop_pad": 2,
        "flip": True,
    } | options
    return list(train_batches(data, **arguments))  # type: ignore[arg-type]


def same(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_batches_do_not_depend_on_earlier_batches() -> None:
    data = random_data()
    every_batch = take(data)
    assert len(every_batch) == steps_per_epoch(50, 8) == 6
    torch.manual_seed(99)  # no method can disturb them through the global generator
    for start in range(7):
        rest = take(data, start_step=start)
        assert len(rest) == 6 - start
        assert all(same(a, b) for a, b in zip(rest, every_batch[start:], strict=True))


def test_each_epoch_seed_and_purpose_differs() -> None:
    data = random_data()
    orders = {
        tuple(torch.cat([index for _, _, index in take(data, **change)]).tolist())
        for change in ({}, {"epoch": 2}, {"seed": 1}, {"purpose": "pretrain"})
    }
    assert len(orders) == 4


def test_draws_do_not_depend_on_each_other() -> None:
    data = random_data()
    changes: tuple[dict[str, object], ...] = (
        {},
        {"flip": False},
        {"crop_pad": 0},
        {"dtype": torch.bfloat16},
    )
    reference = take(data)
    for change in changes:
        for a, b in zip(take(data, **change), reference, strict=True):
            assert torch.equal(a[2], b[2])
    assert torch.equal(drawn(50, 0, 1, "train", 0).mirrored, drawn(50, 0, 1, "train", 4).mirrored)
    sizes = [{int(i): x for x, _, index in take(data, batch_size=b)
              for i, x in zip(index, x, strict=True)} for b in (8, 24)]  # fmt: skip
    for i in sizes[0].keys() & sizes[1].keys():
        assert torch.equal(sizes[0][i], sizes[1][i])  # a sample's crop and flip are its own


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 400),
    seed=st.integers(0, 2**31),
    epoch=st.integers(1, 999),
    pad=st.integers(0, 8),
)
def test_order_is_a_permutation(n: int, seed: int, epoch: int, pad: int) -> None:
    draws = drawn(n, seed, epoch, "train", pad)
    assert sorted(draws.order.tolist()) == list(range(n))
    assert draws.offsets.shape == (n, 2)
    assert 0 <= draws.offsets.min() <= draws.offsets.max() <= 2 * pad


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 60), batch_size=st.integers(1, 60))
def test_epoch_shows_each_sample_at_most_once(n: int, batch_size: int) -> None:
    data = random_data(n, size=2)
    if n < batch_size:
        with pytest.raises(DataError, match=f"batch_size {batch_size} is larger than .* of {n}"):
            train_batches(data, batch_size=batch_size, seed=0, epoch=1)
        return
    seen = [i for _, _, index in train_batches(data, batch_size=batch_size, seed=0, epoch=1)
            for i in index.tolist()]  # fmt: skip
    assert len(seen) == len(set(seen)) == n - n % batch_size


def test_offsets_are_uniform() -> None:
    draws = drawn(81_000, 0, 1, "train", 4)
    cells = torch.bincount(draws.offsets @ torch.tensor([9, 1]), minlength=81)
    assert (cells - 1000).abs().max() < 160  # five standard deviations
    assert abs(float(draws.mirrored.float().mean()) - 0.5) < 0.01


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_format_and_dtype(channels_last: bool, dtype: torch.dtype) -> None:
    data = random_data()
    (images, _, _), *_ = take(data, channels_last=channels_last, dtype=dtype)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert images.is_contiguous(memory_format=layout)
    assert torch.equal(images, take(data)[0][0].to(dtype))


def test_evaluation_yields_all_samples_in_order() -> None:
    data = random_data()
    parts = list(eval_batches(data.test_images, data.test_labels, data, 16))
    assert [len(labels) for _, labels in parts] == [16, 16, 16, 2]
    images = torch.cat([x for x, _ in parts])
    for image, batch_image in zip(data.test_images, images, strict=True):
        expected = plain(image, data, 0, 0, 0, False)
        torch.testing.assert_close(batch_image, expected, rtol=0, atol=1e-6)
    assert torch.equal(torch.cat([y for _, y in parts]), data.test_labels)


def test_images_in_memory_do_not_change() -> None:
    data = random_data()
    before = data.train_images.clone()
    for images, _, _ in islice(train_batches(data, batch_size=8, seed=0, epoch=1), 3):
        images.zero_()
    assert torch.equal(data.train_images, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_device_changes_no_bit(tmp_path: Path) -> None:
    here, there = (load(Dataset(name="synthetic"), tmp_path, d) for d in ("cpu", "cuda"))
    for a, b in zip(take(here), take(there), strict=True):
        assert same(a, tuple(x.cpu() for x in b))


def test_statistics_are_applied(tmp_path: Path) -> None:
    data = load(Dataset(name="digits"), tmp_path)
    images, _, _ = next(train_batches(data, batch_size=900, seed=0, epoch=1))
    assert np.allclose([images.mean(), images.std()], [0, 1], atol=1e-3)
