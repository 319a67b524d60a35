"""Readers of data sets, one function each: add a data set here.

A reader takes the ``Dataset`` and the folder of all data sets and gives the whole data set as uint8
images; cutting it to size is the business of data.py.
"""

from collections.abc import Callable
from pathlib import Path

from kdbench.data.readers.base import DataError, DataSource
from kdbench.data.readers.built_in import digits, synthetic
from kdbench.data.readers.downloaded import (
    archive_available,
    cifar,
    fashion_available,
    fashion_mnist,
    stl10,
)
from kdbench.data.readers.image_folder import imagefolder
from kdbench.grid.settings import DATASETS, Dataset

READERS: dict[str, Callable[[Dataset, Path], DataSource]] = {
    "digits": digits,
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar,
    "cifar100": cifar,
    "stl10": stl10,
    "imagefolder": imagefolder,
    "synthetic": synthetic,
}


def available(name: str, root: Path) -> tuple[bool, str]:
    """Whether a data set's files are there, and where or what to do; reads and checks none.

    Args:
        name: one of ``DATASETS``.
        root: as for ``load``; for imagefolder the folder of the images itself.
    """
    root = Path(root).expanduser()
    if name not in DATASETS:
        raise DataError(f"no data set {name!r}; there are {', '.join(DATASETS)}")
    if name in ("digits", "synthetic"):
        return True, "comes with scikit-learn" if name == "digits" else "generated, for tests"
    if name == "imagefolder":
        found = (root / "train").is_dir() and (root / "test").is_dir()
        return found, str(root) if found else "any folder with train/CLASS/* and test/CLASS/*"
    return fashion_available(root) if name == "fashion_mnist" else archive_available(name, root)
