"""Tiny data sets in the files' real formats, written into a temporary folder."""

import gzip
import hashlib
import pickle
import shutil
import struct
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from kdbench.data.readers import downloaded
from kdbench.data.readers.cifar_classes import CLASS_DIGESTS, CLASSES
from kdbench.data.readers.pixel_digest import class_digests
from kdbench.grid.dataset_facts import DATASETS


def md5(path: Path) -> str:
    """Compute the checksum of a file."""
    return hashlib.md5(path.read_bytes()).hexdigest()


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    """Return random uint8 numbers."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def _pickle(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(dict(content), protocol=2))


def cifar(
    root: Path, name: str, monkeypatch: pytest.MonkeyPatch, *, packed: bool = False
) -> dict[str, tuple[np.ndarray, list[int]]]:
    """Write CIFAR-10 or CIFAR-100 with two images per class to train and one to test.

    torchvision's checksums, and the facts on numbers and digest, are replaced by these files'.

    Args:
        root: folder of all data sets.
        name: ``cifar10`` or ``cifar100``.
        monkeypatch: the test's.
        packed: leave only the archive.

    Returns:
        Images [N, 32, 32, 3] and labels of ``train`` and ``test``.
    """
    kind: Any = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    classes = int(name.removeprefix("cifar"))
    folder = root / name / kind.base_folder
    key = "labels" if name == "cifar10" else "fine_labels"
    made = {}
    for split, files, per_class in (("train", kind.train_list, 2), ("test", kind.test_list, 1)):
        labels = [k % classes for k in range(per_class * classes)]
        images = pixels(len(labels), 32, 32, 3, seed=per_class)
        flat = images.transpose(0, 3, 1, 2).reshape(len(labels), 3072)
        parts = np.array_split(np.arange(len(labels)), len(files))
        for (file, _), part in zip(files, parts, strict=True):
            content = {"data": flat[part], key: [labels[i] for i in part], "batch_label": file}
            _pickle(folder / file, content)
        made[split] = (images, labels)
    names = list(CLASSES[name])
    _pickle(folder / kind.meta["filename"], {kind.meta["key"]: names})

    for attribute in ("train_list", "test_list"):
        new = [[file, md5(folder / file)] for file, _ in getattr(kind, attribute)]
        monkeypatch.setattr(kind, attribute, new)
    meta = kind.meta | {"md5": md5(folder / kind.meta["filename"])}
    monkeypatch.setattr(kind, "meta", meta)
    archived(root / name / kind.filename, kind, folder, monkeypatch, packed=packed)
    replace_facts(name, made, monkeypatch)
    return made


def replace_facts(
    name: str,
    made: Mapping[str, tuple[np.ndarray, list[int]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Replace numbers and digests of CIFAR-10 or CIFAR-100 by those of ``made``."""
    lines = [
        f"{split}/{CLASSES[name][k]}/{hashlib.sha256(image.tobytes()).hexdigest()}"
        for split, (images, labels) in made.items()
        for image, k in zip(images, labels, strict=True)
    ]
    facts = DATASETS[name]._replace(
        train_images=len(made["train"][1]),
        test_images=len(made["test"][1]),
        digest=hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest(),
    )
    monkeypatch.setitem(DATASETS, name, facts)
    by_class = {key: value[:8] for key, value in class_digests(lines).items()}
    monkeypatch.setitem(CLASS_DIGESTS, name, by_class)


def cifar_folders(root: Path, name: str, made: Mapping[str, tuple[np.ndarray, list[int]]]) -> Path:
    """Write images as ``root/NAME/{train,test}/CLASS/<n>.png``, and return ``root/NAME``."""
    for split, (images, labels) in made.items():
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            file = root / name / split / CLASSES[name][label] / f"{i:05}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(file)
    return root / name


def archived(
    archive: Path, kind: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, *, packed: bool
) -> None:
    """Pack a folder as torchvision expects to download it; leave only one of the two."""
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, arcname=kind.base_folder)
    monkeypatch.setattr(kind, "tgz_md5", md5(archive))
    if packed:
        shutil.rmtree(folder)
    else:
        archive.unlink()


def fashion(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, packed: bool
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Write Fashion-MNIST as idx files into ``folder``: 30 images to train, 10 to test.

    Args:
        folder: folder of the four files.
        monkeypatch: the test's; kdbench's checksums are replaced by these files'.
        packed: compress the files to .gz, as Debian does.

    Returns:
        Images [N, 28, 28] and labels of ``train`` and ``t10k``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = {}
    for split, count in (("train", 30), ("t10k", 10)):
        images, labels = pixels(count, 28, 28, seed=count), np.arange(count, dtype=np.uint8) % 10
        files = {
            f"{split}-images-idx3-ubyte": struct.pack(">4i", 2051, count, 28, 28)
            + images.tobytes(),
            f"{split}-labels-idx1-ubyte": struct.pack(">2i", 2049, count) + labels.tobytes(),
        }
        for stem, content in files.items():
            checksum = hashlib.md5(content).hexdigest()
            monkeypatch.setitem(downloaded.FASHION_MD5, stem, checksum)
            if packed:
                (folder / f"{stem}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / stem).write_bytes(content)
        made[split] = (images, labels)
    return made


def folders(
    root: Path,
    classes: tuple[str, ...] = ("cat", "dog"),
    *,
    train: int = 3,
    test: int = 2,
    size: tuple[int, int] = (12, 12),
    suffix: str = ".png",
) -> Path:
    """Write ``root/{train,test}/CLASS/<n>.png`` of random pixels, and return ``root``."""
    for split, count in (("train", train), ("test", test)):
        for k, name in enumerate(classes):
            for i in range(count):
                file = root / split / name / f"{i}{suffix}"
                file.parent.mkdir(parents=True, exist_ok=True)
                seed = 1000 * k + 10 * i + (split == "test")
                Image.fromarray(pixels(size[1], size[0], 3, seed=seed)).save(file)
    return root


def stl10(
    root: Path, monkeypatch: pytest.MonkeyPatch, *, packed: bool = False
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Write STL-10's binary files, without those of its unlabelled images.

    Args:
        root: folder of all data sets.
        monkeypatch: the test's; torchvision's checksums are replaced by these files'.
        packed: leave only the archive.

    Returns:
        Images [N, 96, 96, 3] and labels from 0 of ``train`` and ``test``.
    """
    kind = datasets.STL10
    folder = root / "stl10" / kind.base_folder
    folder.mkdir(parents=True)
    made = {}
    for split, count in (("train", 20), ("test", 10)):
        images, labels = pixels(count, 96, 96, 3, seed=count), np.arange(count, dtype=np.uint8) % 10
        (folder / f"{split}_X.bin").write_bytes(images.transpose(0, 3, 2, 1).tobytes())  # columns
        (folder / f"{split}_y.bin").write_bytes((labels + 1).tobytes())
        made[split] = (images, labels)
    (folder / kind.class_names_file).write_text("\n".join(f"class {k}" for k in range(10)) + "\n")
    for attribute in ("train_list", "test_list"):
        new = [
            [file, md5(folder / file) if (folder / file).is_file() else "0"]
            for file, _ in getattr(kind, attribute)
        ]
        monkeypatch.setattr(kind, attribute, new)
    archived(root / "stl10" / kind.filename, kind, folder, monkeypatch, packed=packed)
    return made
