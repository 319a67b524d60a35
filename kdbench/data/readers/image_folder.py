"""``imagefolder``: a folder of ``train/CLASS/*`` and ``test/CLASS/*``, decoded once and cached."""

import os
from pathlib import Path

import torch

from kdbench.data.readers.base import DataError, DataSource, Split, line
from kdbench.data.readers.decoding import SUFFIXES, decoded
from kdbench.grid.settings import Dataset


def available(name: str, root: Path) -> tuple[bool, str]:
    """Check whether ``root`` holds ``train`` and ``test``."""
    if (root / "train").is_dir() and (root / "test").is_dir():
        return True, str(root)
    return False, "any folder with train/CLASS/* and test/CLASS/*"


def imagefolder(dataset: Dataset, root: Path) -> DataSource:
    """Read a folder of images; the decoded images are cached in ``root/cache``.

    Raises:
        DataError: the folder is incomplete, or a file cannot be decoded.
    """
    folder = Path(dataset.root or "").expanduser()
    parts = {}
    for part in ("train", "test"):
        if not (folder / part).is_dir():
            raise DataError(f"{folder / part} not found: it holds a folder per class")
        try:
            parts[part] = files_by_class(folder / part)
        except OSError as error:
            raise DataError(f"{folder / part} cannot be read: {line(error)}") from error
    train, test = parts["train"], parts["test"]
    if unpaired := sorted(train.keys() ^ test.keys()):
        part = "train" if unpaired[0] in train else "test"
        more = f" and {len(unpaired) - 1} more" if len(unpaired) > 1 else ""
        raise DataError(f"{folder}: class {unpaired[0]!r}{more} only in {part}")
    files = [file for part in (train, test) for some in part.values() for file in some]
    labels = torch.tensor(
        [label for part in (train, test) for label, some in enumerate(part.values()) for _ in some]
    )
    images = torch.from_numpy(decoded(files, folder, dataset.size, root / "cache"))
    n = sum(map(len, train.values()))
    return DataSource(Split(images[:n], labels[:n]), Split(images[n:], labels[n:]), tuple(train))


def unlabelled(folder: Path, size: int | None, root: Path) -> torch.Tensor:
    """Read all images of a folder, or of its ``train`` if it also has ``test``, without classes.

    Returns:
        uint8 [N, size, size, 3]; the decoded images are cached in ``root/cache``.

    Raises:
        DataError: there is no image, or a file cannot be decoded.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} not found: it holds images, in any folders")
    part = folder / "train" if available("imagefolder", folder)[0] else folder
    try:
        files = _files_below(part)
    except OSError as error:
        raise DataError(f"{part} cannot be read: {line(error)}") from error
    if not files:
        raise DataError(f"{part}: no images; accepted names end in {', '.join(SUFFIXES)}")
    return torch.from_numpy(decoded(files, folder, size, root / "cache"))


def files_by_class(part: Path) -> dict[str, list[Path]]:
    """List the image files below each class folder, in the order of torchvision's ``ImageFolder``.

    Links to folders are followed, except back into a folder that contains them.

    Raises:
        DataError: there is no class, a class has no image, or its name is not text.
        OSError: a folder cannot be read.
    """
    classes = sorted(entry.name for entry in os.scandir(part) if entry.is_dir())
    if not classes:
        raise DataError(f"{part}: no class folder; it holds a folder per class")
    found: dict[str, list[Path]] = {}
    for name in classes:
        if not name.isprintable() or not _is_text(name):
            raise DataError(f"{part}: the class folder {name!r} needs a name of printable text")
        found[name] = _files_below(part / name)
        if not found[name]:
            endings = ", ".join(SUFFIXES)
            raise DataError(f"{part / name}: no images; accepted names end in {endings}")
    return found


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _files_below(folder: Path) -> list[Path]:
    """List the image files below a folder, sorted by their folders' paths, then by name."""
    found: list[tuple[str, list[Path]]] = []
    pending: list[tuple[str, frozenset[str]]] = [(str(folder), frozenset())]
    while pending:
        place, above = pending.pop()
        here = os.path.realpath(place)
        if here in above:
            continue  # a link to a folder above; its paths have no end
        with os.scandir(place) as entries:
            listed = [(entry.name, entry.is_dir()) for entry in entries]
        pending += [(f"{place}/{name}", above | {here}) for name, deep in listed if deep]
        images = sorted(n for n, deep in listed if not deep and n.lower().endswith(SUFFIXES))
        found.append((place, [Path(place, name) for name in images]))
    return [file for _, some in sorted(found) for file in some]
