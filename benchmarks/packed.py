"""Read a packed data set, as ``benchmarks.pack`` writes it.

``NAME-0.bin``, ``NAME-1.bin``, ... are sequences of atlases: lossless WebP images of 25 columns of
tiles. Each tile is an image of the data set, in the canonical order of
``kdbench.data.readers.pixel_digest``. ``NAME.json`` is described at ``Index``.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from kdbench.data.dataset import LoadedData, prepare
from kdbench.data.readers import pixel_digest
from kdbench.data.readers.base import UNREADABLE, DataError, DataSource, Split, line
from kdbench.data.readers.cifar import SPLITS, verified_counts, verified_digest
from kdbench.grid.settings import Dataset

FORMAT = 1
TILES, COLUMNS = 500, 25
"""Images of an atlas, and of a row. A class of CIFAR-100's training set fills an atlas."""


class Index(NamedTuple):
    """Content of ``NAME.json``.

    Attributes:
        dataset: name of the data set.
        digest: of the images with their classes, see ``kdbench.data.readers.pixel_digest``.
        classes: names of the classes, in the order of the labels.
        counts: split -> number of images of each class.
        shape: height, width and channels of an image.
        parts: for each part ``bytes``, ``sha256`` and ``atlases``, the lengths of its atlases.
    """

    dataset: str
    digest: str
    classes: tuple[str, ...]
    counts: dict[str, list[int]]
    shape: tuple[int, ...]
    parts: list[dict[str, Any]]


def unpack(folder: Path, name: str = "cifar100") -> DataSource:
    """Read a packed data set, in canonical order.

    Raises:
        DataError: a file is missing or damaged, or the images are not those of the data set.
    """
    index = read_index(folder, name)
    path = index_path(folder, name)
    total = sum(map(sum, index.counts.values()))
    sizes = [TILES] * (total // TILES) + ([total % TILES] if total % TILES else [])
    encoded = [atlas for k in range(len(index.parts)) for atlas in read_part(folder, index, k)]
    if len(encoded) != len(sizes):
        raise DataError(f"{path}: damaged: {len(encoded)} atlases, expected {len(sizes)}")

    def decode(atlas: bytes, count: int) -> np.ndarray:
        return decoded(atlas, count, index.shape)

    try:
        with ThreadPoolExecutor() as pool:
            images = torch.from_numpy(np.concatenate(list(pool.map(decode, encoded, sizes))))
    except UNREADABLE as error:
        raise DataError(f"{path}: an atlas cannot be decoded: {line(error)}") from error
    splits, start = [], 0
    for key in SPLITS:
        counts = torch.tensor(index.counts[key])
        labels = torch.repeat_interleave(torch.arange(len(counts)), counts)
        splits.append(Split(images[start : start + len(labels)], labels))
        start += len(labels)
    source = DataSource(splits[0], splits[1], index.classes)
    source, lines = pixel_digest.ordered(verified_counts(path, name, source))
    if verified_digest(path, name, lines) != index.digest:
        raise DataError(f"{path}: damaged: the images have another digest than it says")
    return source


def load_packed(
    folder: Path, dataset: Dataset | None = None, device: torch.device | str = "cpu"
) -> LoadedData:
    """Read a packed data set like ``kdbench.data.dataset.load``: with the same tensors and digest.

    Args:
        folder: of the packed files.
        dataset: data set, subset and size of the images; None: all of CIFAR-100.
        device: device of the tensors.

    Raises:
        DataError: as ``unpack``, or a class has too few images.
    """
    dataset = dataset or Dataset(name="cifar100")
    return prepare(dataset, unpack(folder, dataset.name), device)


def read_index(folder: Path, name: str) -> Index:
    """Read ``NAME.json``.

    Raises:
        DataError: it is missing, damaged or of another version.
    """
    path = index_path(folder, name)
    try:
        values = json.loads(path.read_bytes())
        if values.pop("format") != FORMAT:
            raise DataError(f"{path}: written by another version: pack the data set again")
        index = Index(**values)
        index = index._replace(classes=tuple(index.classes), shape=(*index.shape,))
        if index.dataset != name or set(index.counts) != set(SPLITS):
            raise ValueError("it describes no such data set")
        if any(sum(part["atlases"]) != part["bytes"] or not part["sha256"] for part in index.parts):
            raise ValueError("the lengths of the atlases are not those of the parts")
        if any(len(counts) != len(index.classes) for counts in index.counts.values()):
            raise ValueError("the numbers of classes differ")
    except FileNotFoundError:
        raise DataError(f"{path}: not found; `python -m benchmarks.pack pack` writes it") from None
    except DataError:
        raise
    except (*UNREADABLE, AttributeError) as error:
        raise DataError(f"{path}: damaged: {line(error)}") from error
    return index


def read_part(folder: Path, index: Index, number: int) -> Iterator[bytes]:
    """Yield the atlases of a part.

    Raises:
        DataError: it is missing or damaged.
    """
    path, about = part_path(folder, index.dataset, number), index.parts[number]
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: not found: part {number + 1} of {len(index.parts)}") from None
    if len(content) != about["bytes"]:
        raise DataError(f"{path}: damaged: {len(content):,} bytes, expected {about['bytes']:,}")
    if hashlib.sha256(content).hexdigest() != about["sha256"]:
        raise DataError(f"{path}: damaged: its sha256 is not {about['sha256'][:16]}...")
    start = 0
    for length in about["atlases"]:
        yield content[start : start + length]
        start += length


def decoded(atlas: bytes, count: int, shape: Sequence[int]) -> np.ndarray:
    """Decode the first ``count`` images of an atlas, [count, H, W, 3]."""
    h, w, c = shape
    with Image.open(io.BytesIO(atlas)) as image:
        wide = np.asarray(image.convert("RGB"))
    tiles = wide.reshape(-1, h, COLUMNS, w, c).swapaxes(1, 2).reshape(-1, h, w, c)
    if not count <= len(tiles) < count + COLUMNS:
        raise ValueError(f"{len(tiles)} tiles for {count} images")
    return tiles[:count]


def index_path(folder: Path, name: str) -> Path:
    """Return the path of the JSON file."""
    return folder / f"{name}.json"


def part_path(folder: Path, name: str, number: int) -> Path:
    """Return the path of a part, counted from 0."""
    return folder / f"{name}-{number}.bin"
