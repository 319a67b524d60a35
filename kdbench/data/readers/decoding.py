"""Decode many image files into one array, and keep the array for the next time."""

import hashlib
import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from kdbench.data.readers.base import UNREADABLE, DataError, line, resize, write

log = logging.getLogger(__name__)

SMALL = 64 * 64
"""Images of at most so many pixels are decoded by one thread. Pillow needs Python's lock for most
of the time that a small file takes: two threads were slower than one (60,000 PNGs of 32x32)."""


def decoded(
    files: Sequence[Path], folder: Path, size: int | None, cache: Path, exact: int | None = None
) -> np.ndarray:
    """Return images as RGB, from the cache if no file's name, size or time has changed.

    Args:
        files: the image files.
        folder: folder that contains them all.
        size: resize to this many pixels; None: do not resize.
        cache: folder for the decoded images.
        exact: height and width that each file must have; None: all must be equal and square.

    Returns:
        uint8 [N, H, W, 3], in the order of ``files``.

    Raises:
        DataError: a file cannot be decoded, or has another size.
    """
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
    images = _decode(files, size, exact)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        write(kept, images)
    except OSError as error:
        log.warning("decoded images are not cached: %s", line(error))
    return images


def _decode(files: Sequence[Path], size: int | None, exact: int | None) -> np.ndarray:
    """Decode image files as RGB, uint8 [N, H, W, 3]."""
    from PIL import Image

    def read(file: Path) -> np.ndarray:
        try:
            with Image.open(file) as image:
                pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))
        except UNREADABLE as error:
            raise DataError(f"{file} cannot be decoded: {line(error)}") from error
        if exact and pixels.shape[:2] != (exact, exact):
            raise DataError(f"{file} is {_pixels(pixels)}, expected {exact}x{exact}")
        return resize(torch.from_numpy(pixels)[None], size)[0].numpy() if size else pixels

    first = read(files[0])
    if first.shape[0] != first.shape[1]:
        raise DataError(f"{files[0]} is {_pixels(first)}, not square: give size")
    if first.shape[0] * first.shape[1] <= SMALL:
        return _stacked(map(read, files), files, first)
    with ThreadPoolExecutor() as pool:
        try:
            return _stacked(pool.map(read, files), files, first)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _stacked(arrays: Iterable[np.ndarray], files: Sequence[Path], first: np.ndarray) -> np.ndarray:
    """Copy images of equal shape into one array."""
    images = np.empty((len(files), *first.shape), np.uint8)
    for i, pixels in enumerate(arrays):
        if pixels.shape != first.shape:
            raise DataError(
                f"{files[0]} is {_pixels(first)} but {files[i]} is {_pixels(pixels)}: give size"
            )
        images[i] = pixels
        if (i + 1) % 10_000 == 0:
            log.info("decoded %d of %d images", i + 1, len(files))
    return images


def _pixels(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
