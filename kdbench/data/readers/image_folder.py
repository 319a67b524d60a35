"""``imagefolder``: a folder of ``train/CLASS/*`` and ``test/CLASS/*``, decoded once and cached."""

import hashlib
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from kdbench.data.readers.base import UNREADABLE, DataError, DataSource, Split, line, resize, write
from kdbench.grid.settings import Dataset

log = logging.getLogger(__name__)


def available(name: str, root: Path) -> tuple[bool, str]:
    """Check whether ``root`` holds ``train`` and ``test``."""
    if (root / "train").is_dir() and (root / "test").is_dir():
        return True, str(root)
    return False, "any folder with train/CLASS/* and test/CLASS/*"


def imagefolder(dataset: Dataset, root: Path) -> DataSource:
    """Read a folder of images; the decoded images are cached in ``root/cache``."""
    from torchvision.datasets import ImageFolder

    folder = Path(dataset.root or "").expanduser()
    splits = {}
    for part in ("train", "test"):
        if not (folder / part).is_dir():
            raise DataError(f"{folder / part} not found: it holds a folder per class")
        try:
            splits[part] = ImageFolder(folder / part)
        except FileNotFoundError as error:
            raise DataError(f"{folder / part}: {line(error)}") from error
    train, test = splits["train"], splits["test"]
    if unpaired := sorted(set(train.classes) ^ set(test.classes)):
        part = "train" if unpaired[0] in train.classes else "test"
        more = f" and {len(unpaired) - 1} more" if len(unpaired) > 1 else ""
        raise DataError(f"{folder}: class {unpaired[0]!r}{more} only in {part}")
    files = [Path(file) for file, _ in train.samples + test.samples]
    images = torch.from_numpy(_decoded(files, folder, dataset.size, root / "cache"))
    labels = torch.tensor(train.targets + test.targets)
    n = len(train.targets)
    return DataSource(
        Split(images[:n], labels[:n]), Split(images[n:], labels[n:]), tuple(train.classes)
    )


def _decoded(files: list[Path], folder: Path, size: int | None, cache: Path) -> np.ndarray:
    """Return all images, uint8 [N, H, W, 3], from the cache if the files have not changed."""
    mark = hashlib.sha256(f"1 {folder.resolve()} {size}".encode())
    for file in files:
        stat = file.stat()
        mark.update(f"\n{file.relative_to(folder)} {stat.st_size} {stat.st_mtime_ns}".encode())
    kept = cache / f"{folder.name}-{mark.hexdigest()[:16]}.npz"
    if kept.is_file():
        try:
            with kept.open("rb") as stream, np.load(stream) as arrays:
                images: np.ndarray = arrays["images"]
            if len(images) == len(files):
                return images
        except UNREADABLE as error:
            log.warning("%s is damaged (%s): decoding again", kept, line(error))
    images = _decode(files, size)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        write(kept, images)
    except OSError as error:
        log.warning("decoded images are not cached: %s", line(error))
    return images


def _decode(files: list[Path], size: int | None) -> np.ndarray:
    """Decode image files as RGB, uint8 [N, H, W, 3]."""
    from PIL import Image

    def read(file: Path) -> np.ndarray:
        try:
            with Image.open(file) as image:
                pixels = np.array(image.convert("RGB"))
        except UNREADABLE as error:
            raise DataError(f"{file} cannot be decoded: {line(error)}") from error
        return resize(torch.from_numpy(pixels)[None], size)[0].numpy() if size else pixels

    first = read(files[0])
    if first.shape[0] != first.shape[1]:
        raise DataError(f"{files[0]} is {_pixels(first)}, not square: give size")
    images = np.empty((len(files), *first.shape), np.uint8)
    with ThreadPoolExecutor() as pool:
        try:
            for i, pixels in enumerate(pool.map(read, files)):
                if pixels.shape != first.shape:
                    raise DataError(
                        f"{files[0]} is {_pixels(first)} but {files[i]} is "
                        f"{_pixels(pixels)}: give size"
                    )
                images[i] = pixels
                if (i + 1) % 10_000 == 0:
                    log.info("decoded %d of %d images", i + 1, len(files))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return images


def _pixels(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
