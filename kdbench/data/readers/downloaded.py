"""STL-10 and Fashion-MNIST, and the archives of CIFAR, by torchvision's classes, with checksums."""

import gzip
import hashlib
import http.client
import logging
import os
import socket
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from kdbench.data.readers.base import UNREADABLE, DataError, DataSource, Split, line, write
from kdbench.grid.dataset_facts import DATASETS
from kdbench.grid.settings import Dataset

log = logging.getLogger(__name__)


DEBIAN = Path("/usr/share/datasets/fashion-mnist")


FASHION_MD5 = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}
"""md5 of the decompressed files: torchvision checks the compressed files, which Debian changed."""


NO_DOWNLOAD = (OSError, RuntimeError, EOFError, http.client.HTTPException, tarfile.TarError)


def available(name: str, root: Path) -> tuple[bool, str]:
    """Check whether the files of a data set are present.

    Returns:
        Whether they are, and where, or which file to put where.
    """
    return fashion_available(root) if name == "fashion_mnist" else archive_available(name, root)


def fashion_available(root: Path) -> tuple[bool, str]:
    """Check whether Fashion-MNIST's files are present, and say where, or what to put where."""
    raw = fashion_folder(root)
    if all((raw / stem).is_file() for stem in FASHION_MD5):
        return True, str(raw)
    if all(packed(raw, stem) for stem in FASHION_MD5):
        return True, f"{DEBIAN if DEBIAN.is_dir() else raw} (unpacked at first use)"
    return False, fashion_advice(root)


def archive_available(name: str, root: Path) -> tuple[bool, str]:
    """Check whether the files of cifar10, cifar100 or stl10 are present, in the same way."""
    kind = archive_class(name)
    folder = root / name / kind.base_folder
    if all((folder / file).is_file() for file in archive_files(kind)):
        return True, str(folder)
    archive = root / name / kind.filename
    if archive.is_file():
        return True, f"{archive} (unpacked at first use)"
    return False, archive_advice(kind, root / name)


def stl10(dataset: Dataset, root: Path) -> DataSource:
    """Read the labelled images of STL-10."""
    kind, folder = unpacked(dataset.name, root)
    where = folder / kind.base_folder
    try:
        train, test = kind(folder, "train"), kind(folder, "test")
    except UNREADABLE as error:
        raise DataError(f"{where}: {line(error)}") from error
    splits = [
        checked(dataset.name, where, part.data.transpose(0, 2, 3, 1), part.labels, 10)
        for part in (train, test)
    ]
    return DataSource(splits[0], splits[1], tuple(train.classes))


def unpacked(name: str, root: Path) -> tuple[Any, Path]:
    """Unpack or download a data set, and return torchvision's class and the folder of the files.

    Raises:
        DataError: the files are missing and cannot be downloaded, or are damaged.
    """
    from torchvision.datasets.utils import check_integrity, extract_archive

    kind = archive_class(name)
    folder, archive = root / name, root / name / kind.filename
    files = {folder / kind.base_folder / file: md5 for file, md5 in archive_files(kind).items()}

    def complete() -> bool:
        return all(check_integrity(file, md5) for file, md5 in files.items())

    if not complete():
        with _preparing(folder):
            if not complete() and check_integrity(archive, kind.tgz_md5):
                log.info("%s: unpacking %s", name, archive)
                extract_archive(archive, folder)
            reason = None if complete() else _download(lambda: kind(folder, download=True))
        if not complete():
            advice = archive_advice(kind, folder)
            for file, md5 in {archive: kind.tgz_md5, **files}.items():
                if file.is_file() and not check_integrity(file, md5):
                    raise DataError(f"{file} is damaged (its md5 is not {md5}): {advice}")
            raise DataError(f"not found and cannot be downloaded ({reason}): {advice}")
    return kind, folder


def archive_class(name: str) -> Any:
    """Return torchvision's class, for STL-10 without its 2.6 GB of unlabelled images."""
    from torchvision import datasets

    class Labelled(datasets.STL10):
        train_list = datasets.STL10.train_list[:2]

    return {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100, "stl10": Labelled}[name]


def archive_files(kind: Any) -> dict[str, str | None]:
    """Return file name -> md5; None if no md5 is published."""
    files: dict[str, str | None] = dict(kind.train_list + kind.test_list)
    if hasattr(kind, "meta"):
        return files | {kind.meta["filename"]: kind.meta["md5"]}
    return files | {kind.class_names_file: None}


def archive_advice(kind: Any, folder: Path) -> str:
    """Say which archive to put where."""
    advice = f"put {kind.filename} (md5 {kind.tgz_md5}) into {folder}"
    # torchvision's CIFAR classes have meta; ``kdbench.data.readers.cifar`` reads their images, too.
    pictures = f", or its images into {folder}/{{train,test}}/CLASS/*.png"
    return advice + (pictures if hasattr(kind, "meta") else "")


def fashion_mnist(dataset: Dataset, root: Path) -> DataSource:
    """Read Fashion-MNIST."""
    from torchvision.datasets import FashionMNIST

    name, raw, advice = dataset.name, fashion_folder(root), fashion_advice(root)
    if missing := [stem for stem in FASHION_MD5 if not (raw / stem).is_file()]:
        with _preparing(raw):
            for stem in missing:
                if archive := packed(raw, stem):
                    log.info("%s: unpacking %s", name, archive)
                    try:
                        write(raw / stem, gzip.decompress(archive.read_bytes()))
                    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                        raise DataError(f"{archive} is damaged: {line(error)}") from error
            if not all((raw / stem).is_file() for stem in FASHION_MD5):
                folder = root / name
                if reason := _download(lambda: FashionMNIST(folder, download=True)):
                    raise DataError(f"not found and cannot be downloaded ({reason}): {advice}")
    for stem, md5 in FASHION_MD5.items():
        if hashlib.md5((raw / stem).read_bytes(), usedforsecurity=False).hexdigest() != md5:
            raise DataError(
                f"{raw / stem} is damaged (its md5 is not {md5}): delete it, then {advice}"
            )
    old = raw.parent / "processed"
    if old.exists():
        raise DataError(f"{old} was written by an old torchvision and is not checked: delete it")
    try:
        train, test = FashionMNIST(root / name, train=True), FashionMNIST(root / name, train=False)
    except UNREADABLE as error:
        raise DataError(f"{raw}: {line(error)}") from error
    splits = [checked(name, raw, part.data, part.targets, 10) for part in (train, test)]
    return DataSource(splits[0], splits[1], tuple(train.classes))


def fashion_folder(root: Path) -> Path:
    """Return the folder of Fashion-MNIST's files."""
    return root / "fashion_mnist" / "FashionMNIST" / "raw"


def fashion_advice(root: Path) -> str:
    """Say which of Fashion-MNIST's files to put where."""
    files = ", ".join(f"{stem}.gz" for stem in FASHION_MD5)
    return f"apt-get install dataset-fashion-mnist, or put {files} into {fashion_folder(root)}"


def packed(raw: Path, stem: str) -> Path | None:
    """Find the compressed file of a data file."""
    return next((f for f in (raw / f"{stem}.gz", DEBIAN / f"{stem}.gz") if f.is_file()), None)


def checked(name: str, where: Path, images: Any, labels: Any, classes: int) -> Split:
    """Convert arrays to a ``Split``, and check the shape of the data set.

    Raises:
        DataError: shape, type or labels are not those of ``DATASETS``.
    """
    channels, size, expected = DATASETS[name].shape or (0, 0, 0)
    split = Split(torch.as_tensor(images), torch.as_tensor(labels, dtype=torch.int64))
    if split.images.ndim == 3:
        split = split._replace(images=split.images[..., None])
    shape = tuple(split.images.shape)
    if shape != (len(split.labels), size, size, channels) or split.images.dtype != torch.uint8:
        raise DataError(
            f"{where}: images {split.images.dtype} {list(shape)} for {len(split.labels)} "
            f"labels, expected uint8 [N, {size}, {size}, {channels}]"
        )
    if classes != expected or split.labels.unique().tolist() != list(range(expected)):
        raise DataError(f"{where}: labels are not the {expected} classes, or not all")
    return split._replace(images=split.images.contiguous())


@contextmanager
def _preparing(folder: Path) -> Iterator[None]:
    """Let only one process at a time write into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        yield


def _download(fetch: Callable[[], object]) -> str | None:
    """Download if allowed; return the reason if it failed."""
    if os.environ.get("KDBENCH_DOWNLOAD") == "0":
        return "KDBENCH_DOWNLOAD=0"
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)  # torchvision sets none: it would wait for minutes
    try:
        fetch()
    except NO_DOWNLOAD as error:
        return line(error)
    finally:
        socket.setdefaulttimeout(before)
    return None
