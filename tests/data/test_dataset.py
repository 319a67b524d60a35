import logging
import shutil
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from data_files import fashion, folders
from PIL import Image
from sklearn.datasets import load_digits
from torchvision import datasets

from kdbench.data import dataset as data_module
from kdbench.data.dataset import load, statistics
from kdbench.data.readers import decoding, downloaded
from kdbench.data.readers.base import DataError, draw, resize
from kdbench.data.readers.by_name import available
from kdbench.data.readers.downloaded import FASHION_MD5
from kdbench.grid.settings import Dataset


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Forbid downloads, and hide data sets that the machine has."""
    monkeypatch.setenv("KDBENCH_DOWNLOAD", "0")
    monkeypatch.setattr(downloaded, "DEBIAN", tmp_path / "no-debian")


def raises(dataset: Dataset, root: Path, *parts: str) -> None:
    """Check that loading fails with one line that contains all parts."""
    with pytest.raises(DataError) as caught:
        load(dataset, root)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{dataset.name}: ")
    assert text.count(f"{dataset.name}: ") == 1
    for part in parts:
        assert part in text, text


def counts(labels: torch.Tensor) -> list[int]:
    return torch.bincount(labels).tolist()


# -- digits and synthetic -------------------------------------------------------------------


def test_digits_equal_scikit_learns(tmp_path: Path) -> None:
    data = load(Dataset(name="digits", per_class=30), tmp_path)
    assert data.train_images.shape == (300, 8, 8, 1)
    assert data.test_images.shape == (1497, 8, 8, 1)
    assert counts(data.train_labels) == [30] * 10
    assert (data.num_classes, data.channels, data.size) == (10, 1, 8)
    assert data.title == "digits, 30 per class"

    bunch = load_digits()
    known = {(image.tobytes(), int(k)) for image, k in zip(bunch.images, bunch.target, strict=True)}
    for images, labels in (
        (data.train_images, data.train_labels),
        (data.test_images, data.test_labels),
    ):
        values = (images[..., 0] / 15).double().numpy()
        assert {(v.tobytes(), int(k)) for v, k in zip(values, labels, strict=True)} <= known


def test_digits_normalise_as_sixteenths(tmp_path: Path) -> None:
    data = load(Dataset(name="digits"), tmp_path)
    assert len(data.train_labels) == 900
    sixteenths = data.train_images.double() / 15 / 16
    expected = (sixteenths - sixteenths.mean()) / sixteenths.std(correction=0)
    normalised = (data.train_images.double() / 255 - data.mean[0]) / data.std[0]
    torch.testing.assert_close(normalised, expected, rtol=0, atol=1e-9)


def test_digits_need_enough_images_per_class() -> None:
    with pytest.raises(ValueError, match="per_class: expected at most 90, the images per class"):
        Dataset(name="digits", per_class=91)


def test_synthetic_is_reproducible_and_learnable(tmp_path: Path) -> None:
    data, again = (load(Dataset(name="synthetic"), tmp_path) for _ in range(2))
    assert data.digest == again.digest
    assert data.train_images.shape == (512, 32, 32, 3)
    assert data.test_images.shape == (256, 32, 32, 3)
    centres = torch.stack(
        [data.train_images[data.train_labels == k].float().mean(0) for k in range(10)]
    )
    nearest = torch.cdist(data.test_images.float().flatten(1), centres.flatten(1)).argmin(1)
    assert (nearest == data.test_labels).float().mean() > 0.95
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [8, 20])
def test_all_images_are_resized(size: int, tmp_path: Path) -> None:
    for name in ("digits", "synthetic"):
        wanted = Dataset.model_validate({"name": name, "size": size, "validation": 0.2})
        data = load(wanted, tmp_path)
        assert data.val_images is not None
        for images in (data.train_images, data.test_images, data.val_images):
            assert images.shape[1:3] == (size, size)
            assert images.is_contiguous()


# -- subsets --------------------------------------------------------------------------------


def test_subset_is_balanced_seeded_and_nested(tmp_path: Path) -> None:
    first, same, other = (
        load(Dataset(name="synthetic", per_class=7, subset_seed=s), tmp_path) for s in (0, None, 1)
    )
    assert counts(first.train_labels) == [7] * 10
    assert first.digest == same.digest != other.digest
    assert torch.equal(first.test_images, other.test_images)
    labels = torch.arange(100) % 4
    few, more = (set(draw(labels, [k] * 4, 3, "x", "abcd")[0].tolist()) for k in (5, 9))
    assert few < more


def test_draw_partitions_positions_in_ascending_order() -> None:
    labels = torch.arange(60) % 3
    drawn, others = draw(labels, [4, 5, 6], 0, "x", "abc")
    assert counts(labels[drawn]) == [4, 5, 6]
    assert sorted(torch.cat((drawn, others)).tolist()) == list(range(60))
    assert drawn.tolist() == sorted(drawn.tolist())


def test_too_few_images_name_the_class(tmp_path: Path) -> None:
    root = folders(tmp_path / "pets")
    raises(folder_of(root, per_class=4), tmp_path, "class 'cat' has 3 images")
    dataset = Dataset(name="synthetic", per_class=1, validation=0.5)
    raises(dataset, tmp_path, "class 'pattern 0' has 1 images", "validation")


def test_validation_is_held_out_of_the_subset(tmp_path: Path) -> None:
    subset = load(Dataset(name="synthetic", per_class=20), tmp_path)
    data = load(Dataset(name="synthetic", per_class=20, validation=0.25), tmp_path)
    assert data.val_images is not None
    assert data.val_labels is not None
    assert counts(data.val_labels) == [5] * 10
    assert counts(data.train_labels) == [15] * 10
    train, val, every = (
        {image.numpy().tobytes() for image in images}
        for images in (data.train_images, data.val_images, subset.train_images)
    )
    assert not train & val
    assert train | val == every
    assert data.mean != subset.mean  # computed without held-out images


def test_statistics_equal_those_of_the_pixels() -> None:
    images = torch.randint(0, 256, (5, 6, 6, 3), dtype=torch.uint8)
    mean, std = statistics(images)
    values = images.double().div(255).flatten(0, 2)
    torch.testing.assert_close(torch.tensor(mean).double(), values.mean(0), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        torch.tensor(std).double(), values.std(0, correction=0), atol=1e-6, rtol=0
    )
    assert statistics(torch.zeros(1, 2, 2, 1, dtype=torch.uint8)) == ((0.0,), (1.0,))


def test_resize_equals_pillows_antialiased_bilinear() -> None:
    images = torch.randint(0, 256, (3, 28, 28, 3), dtype=torch.uint8)
    for image, small in zip(images, resize(images, 16), strict=True):
        pillow = np.array(
            Image.fromarray(image.numpy()).resize((16, 16), Image.Resampling.BILINEAR)
        )
        assert np.abs(pillow.astype(int) - small.numpy()).max() <= 1


# -- Fashion-MNIST --------------------------------------------------------------------------


def raw(root: Path) -> Path:
    return root / "fashion_mnist" / "FashionMNIST" / "raw"


@pytest.mark.parametrize("where", ["raw", "raw packed", "debian"])
def test_fashion(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "debian" if where == "debian" else raw(tmp_path)
    monkeypatch.setattr(downloaded, "DEBIAN", tmp_path / "debian")
    made = fashion(folder, monkeypatch, packed=where != "raw")
    present, text = available("fashion_mnist", tmp_path)
    assert present
    assert str(folder) in text
    data = load(Dataset(name="fashion_mnist"), tmp_path)
    assert np.array_equal(data.train_images[..., 0].numpy(), made["train"][0])
    assert data.test_labels.tolist() == made["t10k"][1].tolist()
    assert data.classes[-1] == "Ankle boot"
    assert (data.channels, data.size) == (1, 28)
    small = load(Dataset(name="fashion_mnist", size=16, per_class=2), tmp_path)
    assert small.train_images.shape == (20, 16, 16, 1)


def test_missing_fashion_names_debians_package(tmp_path: Path) -> None:
    parts = ("apt-get install dataset-fashion-mnist", "train-images-idx3-ubyte.gz", "raw")
    raises(Dataset(name="fashion_mnist"), tmp_path, *parts)
    assert not available("fashion_mnist", tmp_path)[0]


@pytest.mark.parametrize("packed", [False, True])
def test_damaged_fashion(packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fashion(raw(tmp_path), monkeypatch, packed=packed)
    file = raw(tmp_path) / ("t10k-images-idx3-ubyte" + (".gz" if packed else ""))
    file.write_bytes(file.read_bytes()[:-20])
    raises(Dataset(name="fashion_mnist"), tmp_path, str(file), "is damaged")


def test_fashion_is_checked_where_torchvision_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fashion(raw(tmp_path), monkeypatch, packed=False)
    old = raw(tmp_path).parent / "processed"
    old.mkdir()
    raises(Dataset(name="fashion_mnist"), tmp_path, str(old), "delete it")


def test_failing_download_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise URLError("Name or\nservice not known")

    monkeypatch.delenv("KDBENCH_DOWNLOAD")
    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", fail)
    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", fail)
    raises(Dataset(name="cifar10"), tmp_path, "service not known", "put cifar-10-python.tar.gz")
    raises(Dataset(name="fashion_mnist"), tmp_path, "service not known", "apt-get install")


# -- image folders --------------------------------------------------------------------------


def folder_of(root: Path, **options: object) -> Dataset:
    return Dataset.model_validate({"name": "imagefolder", "root": str(root), **options})


def test_imagefolder_is_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root = folders(tmp_path / "pets")
    data = load(folder_of(root), tmp_path)
    assert data.classes == ("cat", "dog")
    assert data.title == "pets"
    assert counts(data.train_labels) == [3, 3]
    assert counts(data.test_labels) == [2, 2]
    with Image.open(root / "train" / "dog" / "2.png") as image:
        assert np.array_equal(data.train_images[5].numpy(), np.array(image))
    (kept,) = (tmp_path / "cache").iterdir()

    with monkeypatch.context() as without:
        without.delattr(decoding, "_decode")
        assert load(folder_of(root), tmp_path).digest == data.digest

    kept.write_bytes(kept.read_bytes()[:-50])
    with caplog.at_level(logging.WARNING):
        assert load(folder_of(root), tmp_path).digest == data.digest
    assert f"{kept} is damaged" in caplog.text

    Image.fromarray(np.zeros((12, 12, 3), np.uint8)).save(root / "test" / "cat" / "0.png")
    assert load(folder_of(root), tmp_path).digest != data.digest
    assert [f.suffix for f in (tmp_path / "cache").iterdir()] == [".npz"] * 2


def test_flipped_bit_in_the_cache_is_noticed(tmp_path: Path) -> None:
    root = folders(tmp_path / "pets")
    data = load(folder_of(root), tmp_path)
    (kept,) = (tmp_path / "cache").iterdir()
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 1
    kept.write_bytes(content)
    assert load(folder_of(root), tmp_path).digest == data.digest


def test_unwritable_cache_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = folders(tmp_path / "pets")
    (tmp_path / "cache").write_text("in the way")
    assert len(load(folder_of(root), tmp_path).train_labels) == 6
    assert "not cached" in caplog.text


def test_grey_and_palette_become_rgb(tmp_path: Path) -> None:
    root = folders(tmp_path / "pets", suffix=".jpg")
    grey = Image.fromarray(np.full((12, 12), 77, np.uint8))
    grey.save(root / "train" / "cat" / "0.jpg")
    grey.convert("P").save(root / "train" / "cat" / "3.png")
    data = load(folder_of(root), tmp_path)
    assert data.channels == 3
    assert data.train_images[0].unique().tolist() == [77]
    assert data.train_images[3].unique().tolist() == [77]


def test_unequal_sizes_need_a_size(tmp_path: Path) -> None:
    root = folders(tmp_path / "pets")
    odd = root / "test" / "dog" / "1.png"
    Image.fromarray(np.zeros((10, 20, 3), np.uint8)).save(odd)
    first = root / "train" / "cat" / "0.png"
    raises(folder_of(root), tmp_path, f"{first} is 12x12 but {odd} is 20x10: give size")
    data = load(folder_of(root, size=6), tmp_path)
    assert data.test_images.shape == (4, 6, 6, 3)
    wide = folders(tmp_path / "wide", size=(14, 12))
    raises(folder_of(wide), tmp_path, "14x12, not square: give size")


@pytest.mark.parametrize("damage", ["truncated", "no image", "empty"])
def test_error_names_a_corrupt_image(damage: str, tmp_path: Path) -> None:
    root = folders(tmp_path / "pets", suffix=".jpg", size=(32, 32))
    file = root / "train" / "dog" / "1.jpg"
    content = file.read_bytes()
    file.write_bytes(
        {"truncated": content[: len(content) // 2], "no image": b"x" * 99}.get(damage, b"")
    )
    raises(folder_of(root), tmp_path, f"{file} cannot be decoded")


def test_missing_parts_of_a_folder(tmp_path: Path) -> None:
    raises(folder_of(tmp_path / "none"), tmp_path, str(tmp_path / "none" / "train"), "not found")
    root = folders(tmp_path / "pets", ("cat", "dog", "emu"))
    shutil.rmtree(root / "test" / "emu")
    raises(folder_of(root), tmp_path, "class 'emu' only in train")
    (root / "test" / "emu").mkdir()
    raises(folder_of(root), tmp_path, "test/emu: no images; accepted names end in .jpg")
    for split in ("train", "test"):
        shutil.rmtree(root / split)
        (root / split).mkdir()
    raises(folder_of(root), tmp_path, "class folder")


# -- all of them ----------------------------------------------------------------------------


def test_digest_depends_on_images_and_labels() -> None:
    images, labels = torch.zeros(4, 2, 2, 1, dtype=torch.uint8), torch.tensor([0, 1, 0, 1])
    digests = {
        data_module.digest(images, labels),
        data_module.digest(images + 1, labels),
        data_module.digest(images, labels.flip(0)),
        data_module.digest(images.view(1, 4, 4, 1), labels),
        data_module.digest(images),
    }
    assert len(digests) == 5


def test_published_checksums_equal_torchvisions() -> None:
    assert datasets.CIFAR100.tgz_md5 == "eb9058c3a382ffc7106e4002c42a8d85"
    stems = [Path(file).stem for file, _ in datasets.FashionMNIST.resources]
    assert sorted(stems) == sorted(FASHION_MD5)
