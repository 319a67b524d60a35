"""CIFAR-10 and CIFAR-100: one set of tensors, from the archive or from folders of PNG images."""

import hashlib
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import cifar, cifar_folders, pixels, replace_facts
from PIL import Image
from small_grids import kdbench
from torchvision import datasets

from kdbench.data.dataset import LoadedData, load
from kdbench.data.readers import decoding
from kdbench.data.readers.base import DataError
from kdbench.data.readers.by_name import available
from kdbench.data.readers.cifar_classes import CLASS_DIGESTS, CLASSES
from kdbench.grid.dataset_facts import DATASETS
from kdbench.grid.settings import Dataset

TENSORS = ("train_images", "train_labels", "test_images", "test_labels")
Made = dict[str, tuple[np.ndarray, list[int]]]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDBENCH_DOWNLOAD", "0")


def message(root: Path, dataset: Dataset | str = "cifar100") -> str:
    """Return the one line with which loading fails, with ``ROOT`` for the folder."""
    with pytest.raises(DataError) as caught:
        load(Dataset(name=dataset) if isinstance(dataset, str) else dataset, root)
    text = str(caught.value)
    assert "\n" not in text
    return text.replace(str(root), "ROOT")


def same(first: LoadedData, second: LoadedData) -> bool:
    tensors = all(torch.equal(getattr(first, t), getattr(second, t)) for t in TENSORS)
    return tensors and first.digest == second.digest and first.classes == second.classes


def drawn(name: str = "cifar100", seed: int = 0) -> Made:
    """Return random images: two of each class to train, one to test."""
    k = len(CLASSES[name])
    return {
        "train": (pixels(2 * k, 32, 32, 3, seed=seed), [i % k for i in range(2 * k)]),
        "test": (pixels(k, 32, 32, 3, seed=seed + 1), list(range(k))),
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A complete ``cifar100`` of PNG folders, whose digest is the expected one."""
    made = drawn()
    replace_facts("cifar100", made, monkeypatch)
    return cifar_folders(tmp_path, "cifar100", made)


# -- one set of tensors ---------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_order_is_by_class_then_by_hash_of_the_pixels(
    name: str, packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = cifar(tmp_path, name, monkeypatch, packed=packed)
    assert available(name, tmp_path)[0]
    data = load(Dataset(name=name), tmp_path)
    for split, images, labels in (
        ("train", data.train_images, data.train_labels),
        ("test", data.test_images, data.test_labels),
    ):
        keyed = [
            (label, hashlib.sha256(image.tobytes()).hexdigest(), image)
            for image, label in zip(*made[split], strict=True)
        ]
        keyed.sort(key=lambda row: row[:2])
        assert np.array_equal(images.numpy(), np.stack([image for *_, image in keyed]))
        assert labels.tolist() == [label for label, *_ in keyed]
        assert images.is_contiguous()
    assert data.classes == CLASSES[name]
    assert (data.mean, data.std) == DATASETS[name].mean_std


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_archive_and_folders_give_the_same_tensors(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = cifar(tmp_path / "archive", name, monkeypatch, packed=True)
    cifar_folders(tmp_path / "folders", name, made)
    noise = {"label_noise": 0.5, "noise_by": "class"}
    subset = {"per_class": 1, "subset_seed": 3}
    for options in ({}, subset, {"label_noise": 0.5}, noise, {"validation": 0.5, "size": 8}):
        dataset = Dataset.model_validate({"name": name, **options})
        first, second = (load(dataset, tmp_path / place) for place in ("archive", "folders"))
        assert same(first, second), options


def test_names_of_files_do_not_matter(folder: Path, tmp_path: Path) -> None:
    first = load(Dataset(name="cifar100"), tmp_path)
    for i, file in enumerate(sorted(folder.glob("*/*/*.png"))):
        file.rename(file.with_name(f"{(i * 7919) % 1000:03}.PNG"))
    (folder / "train" / ".hidden").mkdir()
    (folder / "train" / "apple" / "._x.png").write_bytes(b"")
    (folder / "train" / "notes.txt").write_text("not an image")
    assert same(load(Dataset(name="cifar100"), tmp_path), first)


def test_lossless_forms_of_an_image_are_equal(folder: Path, tmp_path: Path) -> None:
    first = load(Dataset(name="cifar100"), tmp_path)
    file = next((folder / "train" / "apple").iterdir())
    with Image.open(file) as image:
        image.convert("RGBA").save(file, compress_level=0)
    assert same(load(Dataset(name="cifar100"), tmp_path), first)


def test_images_are_decoded_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load(Dataset(name="cifar100"), tmp_path)
    monkeypatch.delattr(decoding, "_decode")
    assert same(load(Dataset(name="cifar100"), tmp_path), first)


def test_archive_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = cifar(tmp_path, "cifar100", monkeypatch, packed=True)
    cifar_folders(tmp_path, "cifar100", {"train": made["test"], "test": made["test"]})
    assert len(load(Dataset(name="cifar100"), tmp_path).train_labels) == 200


# -- arrays ---------------------------------------------------------------------------------------


def arrays(root: Path, made: Made, **other: object) -> Path:
    """Write ``root/cifar100/cifar100.npz``."""
    values: dict[str, object] = {"classes": np.array(CLASSES["cifar100"])}
    for split, (images, labels) in made.items():
        values |= {f"{split}_images": images, f"{split}_labels": np.array(labels)}
    path = root / "cifar100" / "cifar100.npz"
    path.parent.mkdir(exist_ok=True)
    np.savez(path, **values | other)  # type: ignore[arg-type]
    return path


def test_arrays_give_the_same_tensors(folder: Path, tmp_path: Path) -> None:
    first = load(Dataset(name="cifar100"), tmp_path)
    path = arrays(tmp_path, drawn())
    shutil.rmtree(folder / "train")
    assert available("cifar100", tmp_path) == (True, str(path))
    assert same(load(Dataset(name="cifar100"), tmp_path), first)


def test_wrong_arrays(folder: Path, tmp_path: Path) -> None:
    where = "cifar100: ROOT/cifar100/cifar100.npz"
    path = arrays(tmp_path, drawn(seed=3))
    assert message(tmp_path).startswith(f"{where}: the images of train/apple and 199 more classes")
    arrays(tmp_path, drawn(), classes=np.array(CLASSES["cifar100"][::-1]))
    assert message(tmp_path) == f"{where}: its classes are not those of cifar100, in their order"
    arrays(tmp_path, drawn(), train_images=np.zeros((200, 28, 28), np.uint8))
    assert message(tmp_path).startswith(f"{where}: images torch.uint8 [200, 28, 28, 1] for 200")
    arrays(tmp_path, drawn(), train_labels=np.zeros(200, np.int64))
    assert message(tmp_path) == f"{where}: labels are not the 100 classes, or not all"
    for content in (b"", b"no archive", path.read_bytes()[:-500]):
        path.write_bytes(content)
        assert message(tmp_path).startswith(f"{where} cannot be read: ")
    np.savez(path, classes=np.array(CLASSES["cifar100"]))
    assert message(tmp_path).startswith(f"{where} cannot be read: ")


# -- wrong folders --------------------------------------------------------------------------------


def test_number_of_images_of_a_class(folder: Path, tmp_path: Path) -> None:
    next((folder / "train" / "bear").iterdir()).unlink()
    text = "ROOT/cifar100/train/bear: 1 images, expected 2"
    assert message(tmp_path) == f"cifar100: {text}"
    state, about = available("cifar100", tmp_path)
    assert (state, about.replace(str(tmp_path), "ROOT")) == (False, text)
    shutil.copy(next((folder / "test" / "worm").iterdir()), folder / "test" / "worm" / "copy.png")
    more = "; 1 more folders have a wrong number of images"
    assert message(tmp_path) == f"cifar100: {text}{more}"


def test_missing_class_and_split(folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(folder / "test" / "wolf")
    assert message(tmp_path) == "cifar100: ROOT/cifar100/test/wolf: 0 images, expected 1"
    shutil.rmtree(folder / "test")
    assert message(tmp_path) == (
        "cifar100: ROOT/cifar100/test not found: it holds a folder of PNG images per class"
    )


def test_unknown_class(folder: Path, tmp_path: Path) -> None:
    (folder / "train" / "maple_tree").rename(folder / "train" / "mapletree")
    assert message(tmp_path) == (
        "cifar100: ROOT/cifar100/train/mapletree: unknown class (did you mean maple_tree?)"
    )
    (folder / "train" / "zzz").mkdir()
    assert "mapletree and 1 more: unknown class" in message(tmp_path)


def test_jpeg_files_are_not_cifar(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in CLASSES["cifar10"]:
            file = tmp_path / "cifar10" / split / name / "0.jpg"
            file.parent.mkdir(parents=True)
            Image.fromarray(pixels(32, 32, 3)).save(file)
    assert message(tmp_path, "cifar10") == (
        "cifar10: ROOT/cifar10/train/airplane: 0 images, expected 5000 in PNG files; JPEG files "
        "are not cifar10: use imagefolder for them; 19 more folders have a wrong number of images"
    )


def test_wrong_pixel_names_the_class(folder: Path, tmp_path: Path) -> None:
    def spoil(split: str, name: str) -> None:
        file = next((folder / split / name).iterdir())
        with Image.open(file) as image:
            array = np.array(image)
        array[31, 31, 2] ^= 1
        Image.fromarray(array).save(file)

    spoil("test", "orchid")
    assert message(tmp_path).startswith(
        "cifar100: ROOT/cifar100: the images of test/orchid are not those of cifar100 (digest "
    )
    spoil("train", "whale")
    assert "the images of train/whale and 1 more classes are not" in message(tmp_path)


def test_exchanged_images_are_noticed(folder: Path, tmp_path: Path) -> None:
    one, two = (next((folder / "train" / name).iterdir()) for name in ("cup", "plate"))
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)
    assert "the images of train/cup and 1 more classes" in message(tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "no image", "empty"])
def test_unreadable_image_is_named(damage: str, folder: Path, tmp_path: Path) -> None:
    file = next((folder / "train" / "bee").iterdir())
    content = file.read_bytes()
    file.write_bytes({"truncated": content[:900], "no image": b"x" * 99}.get(damage, b""))
    name = str(file).replace(str(tmp_path), "ROOT")
    assert message(tmp_path).startswith(f"cifar100: {name} cannot be decoded: ")


def test_size_of_an_image(folder: Path, tmp_path: Path) -> None:
    file = next((folder / "test" / "bed").iterdir())
    Image.fromarray(pixels(32, 28, 3)).save(file)
    name = str(file).replace(str(tmp_path), "ROOT")
    assert message(tmp_path) == f"cifar100: {name} is 28x32, expected 32x32"


def test_unknown_digest_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = cifar(tmp_path / "archive", "cifar10", monkeypatch)
    digest = DATASETS["cifar10"].digest
    monkeypatch.setitem(DATASETS, "cifar10", DATASETS["cifar10"]._replace(digest=None))
    cifar_folders(tmp_path / "folders", "cifar10", made)
    with caplog.at_level(logging.WARNING):
        load(Dataset(name="cifar10"), tmp_path / "archive")
        assert not caplog.records  # torchvision's checksums were compared
        load(Dataset(name="cifar10"), tmp_path / "folders")
    assert f"no digest is known (found {digest})" in caplog.text


def test_command_refuses_wrong_folders_in_one_line(folder: Path, tmp_path: Path) -> None:
    next((folder / "train" / "apple").iterdir()).unlink()
    result = kdbench(
        "train", "--student", "r8w3", "--dataset", "cifar100", "--data", tmp_path,
        "--runs", tmp_path / "runs",
    )  # fmt: skip
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if "images, expected" in line]
    assert len(lines) == 1
    assert "cifar100/train/apple: 1 images, expected 2" in lines[0]
    assert "Traceback" not in result.output
    table = kdbench("datasets", "--data", tmp_path).stdout.split()
    assert "images, expected 2" in " ".join(table)


# -- wrong archives -------------------------------------------------------------------------------


def test_missing_cifar_says_what_to_put_where(tmp_path: Path) -> None:
    name, md5 = "cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85"
    advice = (
        f"put {name} (md5 {md5}) into ROOT/cifar100, or its images into "
        "ROOT/cifar100/{train,test}/CLASS/*.png"
    )
    assert message(tmp_path) == (
        f"cifar100: not found and cannot be downloaded (KDBENCH_DOWNLOAD=0): {advice}"
    )
    state, about = available("cifar100", tmp_path)
    assert (state, about.replace(str(tmp_path), "ROOT")) == (False, advice)


def test_wrong_checksum_of_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar(tmp_path, "cifar100", monkeypatch, packed=True)
    archive = tmp_path / "cifar100" / "cifar-100-python.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-100])
    assert "ROOT/cifar100/cifar-100-python.tar.gz is damaged" in message(tmp_path)


@pytest.mark.parametrize("file", ["train", "test", "meta"])
def test_damaged_cifar_file(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar(tmp_path, "cifar100", monkeypatch)
    path = tmp_path / "cifar100" / "cifar-100-python" / file
    path.write_bytes(path.read_bytes()[:-1])
    assert f"ROOT/cifar100/cifar-100-python/{file} is damaged" in message(tmp_path)


def test_archive_replaces_damaged_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar(tmp_path, "cifar100", monkeypatch, packed=True)
    first = load(Dataset(name="cifar100"), tmp_path)
    (tmp_path / "cifar100" / "cifar-100-python" / "meta").unlink()
    (tmp_path / "cifar100" / "cifar-100-python" / "train").write_bytes(b"")
    assert same(load(Dataset(name="cifar100"), tmp_path), first)


def test_cifar_with_other_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse content that is not CIFAR in spite of right checksums, as after a format change."""
    cifar(tmp_path, "cifar100", monkeypatch)
    folder = tmp_path / "cifar100" / "cifar-100-python"
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    monkeypatch.setattr("torchvision.datasets.utils.check_integrity", lambda *_: True)
    (folder / "train").write_bytes(b"no pickle")
    assert message(tmp_path).startswith("cifar100: ROOT/cifar100/cifar-100-python: ")
    shutil.copy(folder / "test", folder / "train")
    assert message(tmp_path) == (
        "cifar100: ROOT/cifar100/cifar-100-python: 1 images of train/apple, expected 2"
    )
    shutil.copy(folder / "meta", folder / "train")
    assert message(tmp_path).startswith("cifar100: ROOT/cifar100/cifar-100-python: ")


def test_archive_with_other_pixels_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cifar(tmp_path, "cifar100", monkeypatch)
    replace_facts("cifar100", drawn(seed=5), monkeypatch)
    text = "the images of train/apple and 199 more classes are not those of cifar100"
    assert text in message(tmp_path)


# -- facts ----------------------------------------------------------------------------------------


def test_classes_are_in_torchvisions_order() -> None:
    assert datasets.CIFAR100.meta["key"] == "fine_label_names"
    for name, count in (("cifar10", 10), ("cifar100", 100)):
        assert list(CLASSES[name]) == sorted(CLASSES[name])
        assert len(CLASSES[name]) == count
    assert len(CLASS_DIGESTS["cifar100"]) == 200
    assert set(CLASS_DIGESTS["cifar100"]) == {
        f"{split}/{name}" for split in ("train", "test") for name in CLASSES["cifar100"]
    }
    assert all(len(digest) == 8 for digest in CLASS_DIGESTS["cifar100"].values())


def test_version_is_in_the_canonical_form_of_cifar_only() -> None:
    for name, facts in DATASETS.items():
        dataset = Dataset(name=name, root="images" if name == "imagefolder" else None)
        canonical = dataset.canonical
        assert canonical.get("version") == (2 if name in ("cifar10", "cifar100") else None)
        assert facts.version == canonical.get("version", 1)


@pytest.mark.skipif(
    "KDBENCH_CIFAR100" not in os.environ,
    reason="KDBENCH_CIFAR100 names no folder of cifar100/{train,test}/CLASS/*.png",
)
def test_real_cifar100() -> None:
    """Read the real images. Their mean differs from the papers', in the facts, by up to 0.00015."""
    data = load(Dataset(name="cifar100"), Path(os.environ["KDBENCH_CIFAR100"]))
    assert torch.bincount(data.train_labels).tolist() == [500] * 100
    assert torch.bincount(data.test_labels).tolist() == [100] * 100
    mean = data.train_images.double().div(255).mean((0, 1, 2))
    known = torch.tensor([0.50708, 0.48655, 0.44092], dtype=torch.float64)
    torch.testing.assert_close(mean, known, rtol=0, atol=1e-5)
