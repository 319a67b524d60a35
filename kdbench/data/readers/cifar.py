"""CIFAR-10 and CIFAR-100, from torchvision's archive, arrays, or folders of PNG images.

All give the same tensors: images are put into the canonical order of
``kdbench.data.readers.pixel_digest`` and compared with the published digest, where one is known.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from kdbench.data.readers import pixel_digest
from kdbench.data.readers.base import UNREADABLE, DataError, DataSource, line
from kdbench.data.readers.cifar_classes import CLASS_DIGESTS, CLASSES
from kdbench.data.readers.decoding import decoded
from kdbench.data.readers.downloaded import archive_available, archive_class, checked, unpacked
from kdbench.errors import did_you_mean
from kdbench.grid.dataset_facts import DATASETS
from kdbench.grid.settings import Dataset

log = logging.getLogger(__name__)

SPLITS = ("train", "test")


def available(name: str, root: Path) -> tuple[bool, str]:
    """Check whether the archive, the arrays or all images of the folders are present.

    Returns:
        Whether they are, and where, or what is missing.
    """
    if has_archive(name, root):
        return archive_available(name, root)
    if arrays_path(name, root).is_file():
        return True, str(arrays_path(name, root))
    if not has_folders(name, root):
        return archive_available(name, root)
    try:
        count = sum(len(files) for files, _ in image_files(name, root / name).values())
    except (DataError, OSError) as error:
        return False, line(error)
    return True, f"{count:,} PNG images in {root / name}"


def cifar(dataset: Dataset, root: Path) -> DataSource:
    """Read CIFAR-10 or CIFAR-100 in canonical order.

    The archive is read if it is there, unpacked or not. Otherwise ``root/NAME/NAME.npz`` is read,
    then ``root/NAME/{train,test}/CLASS/*.png``; if none exists, the archive is downloaded.

    Raises:
        DataError: images are missing, unreadable or not those of the data set.
    """
    name, read = dataset.name, _from_archive
    if not has_archive(name, root):
        if arrays_path(name, root).is_file():
            read = _from_arrays
        elif has_folders(name, root):
            read = _from_folders
    where, source = read(name, root)
    source, lines = pixel_digest.ordered(verified_counts(where, name, source))
    digest = verified_digest(where, name, lines)
    if DATASETS[name].digest is None and read is not _from_archive:
        log.warning(
            "%s: the number of images is right, their pixels were not compared: no digest is known"
            " (found %s)",
            name,
            digest,
        )
    return source


def has_archive(name: str, root: Path) -> bool:
    """Check whether torchvision's archive is there, unpacked or not, complete or not."""
    kind, folder = archive_class(name), root / name
    return (folder / kind.filename).exists() or (folder / kind.base_folder).exists()


def arrays_path(name: str, root: Path) -> Path:
    """Return the path of the arrays that ``benchmarks.pack unpack --form npz`` writes."""
    return root / name / f"{name}.npz"


def has_folders(name: str, root: Path) -> bool:
    """Check whether there are folders of images, complete or not."""
    return any((root / name / split).is_dir() for split in SPLITS)


def _from_archive(name: str, root: Path) -> tuple[Path, DataSource]:
    kind, folder = unpacked(name, root)
    where = folder / kind.base_folder
    try:
        parts = [kind(folder, train=True), kind(folder, train=False)]
    except UNREADABLE as error:
        raise DataError(f"{where}: {line(error)}") from error
    train, test = (
        checked(name, where, part.data, part.targets, len(part.classes)) for part in parts
    )
    return where, DataSource(train, test, tuple(parts[0].classes))


def _from_arrays(name: str, root: Path) -> tuple[Path, DataSource]:
    path, classes = arrays_path(name, root), CLASSES[name]
    try:
        with path.open("rb") as stream, np.load(stream) as arrays:
            parts = [(arrays[f"{key}_images"], arrays[f"{key}_labels"]) for key in SPLITS]
            names = tuple(map(str, arrays["classes"]))
    except UNREADABLE as error:
        raise DataError(f"{path} cannot be read: {line(error)}") from error
    if names != classes:
        raise DataError(f"{path}: its classes are not those of {name}, in their order")
    train, test = (checked(name, path, *part, len(classes)) for part in parts)
    return path, DataSource(train, test, classes)


def _from_folders(name: str, root: Path) -> tuple[Path, DataSource]:
    folder = root / name
    by_split = image_files(name, folder)
    files = [file for some, _ in by_split.values() for file in some]
    _, size, classes = DATASETS[name].shape or (0, 0, 0)
    arrays = decoded(files, folder, None, root / "cache", exact=size)
    images = torch.from_numpy(arrays)
    splits, start = [], 0
    for some, labels in by_split.values():
        part = images[start : start + len(some)]
        splits.append(checked(name, folder, part, labels, classes))
        start += len(some)
    return folder, DataSource(splits[0], splits[1], CLASSES[name])


def image_files(name: str, folder: Path) -> dict[str, tuple[list[Path], list[int]]]:
    """List the PNG files of each split, class by class, with their labels.

    Raises:
        DataError: a class is unknown, or has too few or too many images.
    """
    facts, classes = DATASETS[name], CLASSES[name]
    wrong = []
    found: dict[str, tuple[list[Path], list[int]]] = {}
    for split, total in zip(SPLITS, (facts.train_images, facts.test_images), strict=True):
        place = folder / split
        if not place.is_dir():
            raise DataError(f"{place} not found: it holds a folder of PNG images per class")
        _refuse_unknown(place, classes)
        files, labels = found[split] = [], []
        for label, kind in enumerate(classes):
            some = _with_suffix(place / kind, ".png")
            if len(some) != total // len(classes):
                wrong.append((place / kind, len(some), total // len(classes)))
            files += some
            labels += [label] * len(some)
    if wrong:
        place, count, expected = wrong[0]
        text = f"{place}: {count} images, expected {expected}"
        if not count and (_with_suffix(place, ".jpg") or _with_suffix(place, ".jpeg")):
            text += f" in PNG files; JPEG files are not {name}: use imagefolder for them"
        if len(wrong) > 1:
            text += f"; {len(wrong) - 1} more folders have a wrong number of images"
        raise DataError(text)
    return found


def _refuse_unknown(place: Path, classes: Sequence[str]) -> None:
    """Refuse folders that are no class; hidden ones are ignored."""
    present = sorted(f.name for f in place.iterdir() if f.is_dir() and f.name[0] != ".")
    if unknown := [name for name in present if name not in classes]:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        missing = [name for name in classes if name not in present]
        hint = did_you_mean(unknown[0], missing)
        raise DataError(f"{place / unknown[0]}{more}: unknown class{hint}")


def _with_suffix(place: Path, suffix: str) -> list[Path]:
    """List the files of a folder with this suffix by name; hidden files are ignored."""
    if not place.is_dir():
        return []
    files = (f for f in place.iterdir() if f.suffix.lower() == suffix and f.name[0] != ".")
    return sorted(files, key=lambda file: file.name)


def verified_counts(where: object, name: str, source: DataSource) -> DataSource:
    """Return a data set after checking the number of images in each class.

    Raises:
        DataError: a class has too few or too many images.
    """
    facts = DATASETS[name]
    totals = (facts.train_images, facts.test_images)
    for key, split, total in zip(SPLITS, (source.train, source.test), totals, strict=True):
        counts = torch.bincount(split.labels, minlength=len(source.classes)).tolist()
        for kind, count in zip(source.classes, counts, strict=True):
            if count != total // len(source.classes):
                expected = total // len(source.classes)
                raise DataError(f"{where}: {count} images of {key}/{kind}, expected {expected}")
    return source


def verified_digest(where: object, name: str, lines: Sequence[str]) -> str:
    """Return the digest of a data set after comparing it with the published one, if there is one.

    Raises:
        DataError: the digest is another.
    """
    return pixel_digest.check(
        where, name, lines, DATASETS[name].digest, CLASS_DIGESTS.get(name, {})
    )
