"""Pack CIFAR-10 or CIFAR-100 into few files, lossless, for a machine without network; unpack them.

``benchmarks.packed`` describes the files; its ``load_packed`` reads them as a data set to train on.
"""

import argparse
import hashlib
import io
import json
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.packed import (
    COLUMNS,
    FORMAT,
    TILES,
    Index,
    index_path,
    part_path,
    read_index,
    unpack,
)
from benchmarks.packed import load_packed as load_packed
from kdbench.data.readers import pixel_digest
from kdbench.data.readers.base import DataError, DataSource, line
from kdbench.data.readers.by_name import reader
from kdbench.data.readers.cifar import SPLITS
from kdbench.data.readers.cifar_classes import CLASSES
from kdbench.errors import UserError
from kdbench.files import write_atomically
from kdbench.grid.settings import Dataset

MIB = 2**20
PARTS, SIZE = 2, 49.0
"""Default number of parts, and their size in MiB: CIFAR-100 fits."""


def pack(name: str, data: Path, out: Path, parts: int = PARTS, mib: float = SIZE) -> Index:
    """Pack a data set.

    Args:
        name: cifar10 or cifar100.
        data: folder of all data sets; the files of this one are in ``data/name``.
        out: folder for the packed files.
        parts: largest number of .bin files.
        mib: largest size of each of them, in MiB.

    Returns:
        The content of ``NAME.json``.

    Raises:
        DataError: the data set is incomplete or wrong, or does not fit.
    """
    try:
        source, lines = pixel_digest.ordered(reader(name)(Dataset(name=name), data))
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    images = torch.cat((source.train.images, source.test.images)).numpy()
    with ThreadPoolExecutor() as pool:  # Pillow encodes without Python's lock
        atlases = list(pool.map(encode, groups(images)))
    divided = divide([len(atlas) for atlas in atlases], parts, int(mib * MIB))
    out.mkdir(parents=True, exist_ok=True)
    described: list[dict[str, Any]] = []
    for start, end in divided:
        content = b"".join(atlases[start:end])
        write_atomically(part_path(out, name, len(described)), content)
        described.append(
            {
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
                "atlases": [len(atlas) for atlas in atlases[start:end]],
            }
        )
    counts = {
        key: torch.bincount(split.labels, minlength=len(source.classes)).tolist()
        for key, split in zip(SPLITS, (source.train, source.test), strict=True)
    }
    index = Index(
        name, pixel_digest.digest(lines), source.classes, counts, images.shape[1:], described
    )
    write_atomically(index_path(out, name), json.dumps({"format": FORMAT, **index._asdict()}))
    return index


def groups(images: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the images of each atlas, [N, H, W, 3]."""
    for start in range(0, len(images), TILES):
        yield images[start : start + TILES]


def encode(images: np.ndarray) -> bytes:
    """Encode images [N, H, W, 3] as one lossless WebP; the last row is filled with black."""
    n, h, w, c = images.shape
    rows = -(-n // COLUMNS)
    tiles = np.zeros((rows * COLUMNS, h, w, c), np.uint8)
    tiles[:n] = images
    wide = tiles.reshape(rows, COLUMNS, h, w, c).swapaxes(1, 2).reshape(rows * h, COLUMNS * w, c)
    stream = io.BytesIO()
    # More effort gains less than 1 % and takes much longer.
    Image.fromarray(wide).save(stream, "WEBP", lossless=True, method=3, quality=60)
    return stream.getvalue()


def divide(sizes: Sequence[int], parts: int, limit: int) -> list[tuple[int, int]]:
    """Divide a sequence into at most ``parts`` runs, whose largest sum is as small as possible.

    Returns:
        Start and end of each run.

    Raises:
        DataError: the largest sum is above ``limit``.
    """
    low, high = max(sizes), sum(sizes)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(filled(sizes, middle)) <= parts else (middle + 1, high)
    if low > limit:
        enough = f"; {len(filled(sizes, limit))} parts would do" if max(sizes) <= limit else ""
        raise DataError(
            f"{sum(sizes) / MIB:.1f} MiB do not fit into {parts} parts of {limit / MIB:.4g} MiB: "
            f"each needs up to {low / MIB:.2f} MiB{enough}"
        )
    return filled(sizes, low)


def filled(sizes: Sequence[int], limit: int) -> list[tuple[int, int]]:
    """Divide a sequence into runs, each as long as its sum is at most ``limit``."""
    ends, total = [0], 0
    for i, size in enumerate(sizes):
        if total + size > limit and total:
            ends.append(i)
            total = 0
        total += size
    ends.append(len(sizes))
    return list(pairwise(ends))


def write_unpacked(source: DataSource, name: str, out: Path, form: str) -> None:
    """Write a data set as ``out/{train,test}/CLASS/<n>.png``, or as ``out/NAME.npz``.

    Raises:
        DataError: ``out`` already has a folder ``train`` or ``test``, for PNG images.
    """
    out.mkdir(parents=True, exist_ok=True)
    splits = dict(zip(SPLITS, (source.train, source.test), strict=True))
    if form == "npz":
        arrays = {f"{key}_images": split.images.numpy() for key, split in splits.items()}
        arrays |= {f"{key}_labels": split.labels.numpy() for key, split in splits.items()}
        np.savez(out / f"{name}.npz", classes=np.array(source.classes), **arrays)  # type: ignore[arg-type]
        return
    for key, split in splits.items():
        if (out / key).exists():
            raise DataError(f"{out / key} exists: choose another folder, or delete it")
        for kind in source.classes:
            (out / key / kind).mkdir(parents=True)
        for i, (image, k) in enumerate(
            zip(split.images.numpy(), split.labels.tolist(), strict=True)
        ):
            path = out / key / source.classes[k] / f"{i:05}.png"
            Image.fromarray(image).save(path, compress_level=1)


# -- commands -------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Pack or unpack, and print one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pack", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="pack the data set in a data folder")
    packing.add_argument("data", type=Path, help="folder of all data sets, as of kdbench's --data")
    packing.add_argument("out", type=Path)
    packing.add_argument("--parts", type=int, default=PARTS, help="largest number of .bin files")
    packing.add_argument("--mib", type=float, default=SIZE, help="largest size of each, in MiB")
    unpacking = commands.add_parser("unpack", help="write packed images as files again")
    unpacking.add_argument("packed", type=Path, help="folder of the packed files")
    unpacking.add_argument("out", type=Path)
    unpacking.add_argument("--form", choices=("png", "npz"), default="png")
    for command in (packing, unpacking):
        command.add_argument("--dataset", choices=sorted(CLASSES), default="cifar100")
    chosen = parser.parse_args(arguments)
    if chosen.command == "pack" and (chosen.parts < 1 or not chosen.mib > 0):
        parser.error("--parts and --mib must be positive")
    start = time.perf_counter()
    try:
        if chosen.command == "pack":
            index = pack(chosen.dataset, chosen.data, chosen.out, chosen.parts, chosen.mib)
        else:
            index = read_index(chosen.packed, chosen.dataset)
            source = unpack(chosen.packed, chosen.dataset)
            write_unpacked(source, chosen.dataset, chosen.out, chosen.form)
    except (UserError, OSError) as error:
        print(f"benchmarks.pack: {line(error)}", file=sys.stderr)
        return 2
    row = {
        "dataset": index.dataset,
        "digest": index.digest,
        "images": sum(map(sum, index.counts.values())),
        "mib": [round(part["bytes"] / MIB, 2) for part in index.parts],
        "seconds": round(time.perf_counter() - start, 1),
    }
    print(json.dumps(row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
