"""``imagefolder``: a folder of ``train/CLASS/*`` and ``test/CLASS/*``, decoded once and cached."""

from pathlib import Path

import torch

from kdbench.data.readers.base import DataError, DataSource, Split, line
from kdbench.data.readers.decoding import decoded
from kdbench.grid.settings import Dataset


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
    images = torch.from_numpy(decoded(files, folder, dataset.size, root / "cache"))
    labels = torch.tensor(train.targets + test.targets)
    n = len(train.targets)
    return DataSource(
        Split(images[:n], labels[:n]), Split(images[n:], labels[n:]), tuple(train.classes)
    )
