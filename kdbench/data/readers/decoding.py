"""Decode many image files into one array, and keep the array for the next time."""

import hashlib
import logging
import os
import stat
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from kdbench.data.readers.base import UNREADABLE, DataError, line, resize, write

log = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Endings of image files, whatever their capitals; those of torchvision's ``ImageFolder``."""
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that are decoded, whatever a file's ending. Pillow passes others, such as EPS, to other
programs."""
PIXELS = 50_000_000
"""Pixels that an image may have: a file of some kilobytes can claim, and fill, any memory."""
LOSSLESS = ("utf-8", "surrogateescape")
"""Encoding of file names, which may be any bytes."""
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
    mark = hashlib.sha256(f"1 {folder.resolve()} {size}".encode(*LOSSLESS))
    for file in files:
        facts = _regular(file)
        name = file.relative_to(folder)
        mark.update(f"\n{name} {facts.st_size} {facts.st_mtime_ns}".encode(*LOSSLESS))
    kept = cache / f"{folder.name}-{mark.hexdigest()[:16]}.npz"
    if kept.is_file():
        try:
            with kept.open("rb") as stream, np.load(stream) as arrays:
                images: np.ndarray = arrays["images"]
            if images.dtype == np.uint8 and images.ndim == 4 and len(images) == len(files):
                return images
            log.warning("%s does not fit its images: decoding again", kept)
        except UNREADABLE as error:
            log.warning("%s is damaged (%s): decoding again", kept, line(error))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on odd metadata and on large images
        images = _decode(files, size, exact)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        write(kept, images)
    except OSError as error:
        log.warning("decoded images are not cached: %s", line(error))
    return images


def _regular(file: Path) -> os.stat_result:
    """Return facts about a regular file; reading another kind, such as a FIFO, can wait forever."""
    try:
        facts = file.stat()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(facts.st_mode):
        raise DataError(f"{file} is not a regular file")
    return facts


def pixels_of(file: Path, exact: int | None = None) -> np.ndarray:
    """Decode an image file as RGB, uint8 [H, W, 3].

    Args:
        file: a regular file.
        exact: height and width that it must have.

    Raises:
        DataError: the file cannot be decoded, is too large, or has another size than ``exact``.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file, formats=FORMATS) as image:
            shape = f"{image.width}x{image.height}"
            if exact and image.size != (exact, exact):
                raise DataError(f"{file} is {shape}, expected {exact}x{exact}")
            if image.width * image.height > PIXELS:
                most = f"{PIXELS // 10**6} million"
                raise DataError(f"{file} claims {shape} pixels, expected at most {most}")
            return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except DataError:
        raise
    except UnidentifiedImageError as error:
        accepted = ", ".join(FORMATS)
        raise DataError(f"{file} cannot be decoded: not an image; accepted: {accepted}") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{file} claims too many pixels: {line(error)}") from error
    except Exception as error:
        # Pillow's decoders raise many types on damaged files: SyntaxError, struct.error, ...
        raise DataError(f"{file} cannot be decoded: {line(error)}") from error


def _decode(files: Sequence[Path], size: int | None, exact: int | None) -> np.ndarray:
    """Decode image files as RGB, uint8 [N, H, W, 3]."""

    def read(file: Path) -> np.ndarray:
        pixels = pixels_of(file, exact)
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
    try:
        images = np.empty((len(files), *first.shape), np.uint8)
    except MemoryError as error:
        gigabytes = len(files) * first.size / 1e9
        raise DataError(
            f"{len(files)} images of {_pixels(first)} need {gigabytes:.0f} GB: give size"
        ) from error
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
