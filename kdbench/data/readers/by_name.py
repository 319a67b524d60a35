"""Find the reader of a data set, and whether its files are present.

A reader is a function ``reader(dataset, root) -> DataSource``. It returns the complete data set as
uint8 images; ``kdbench.data.dataset`` then resizes it and draws subsets. ``DATASETS`` in
``kdbench.grid.dataset_facts`` names the reader of each data set.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

from kdbench.data.readers.base import DataError, DataSource
from kdbench.grid.dataset_facts import DATASETS
from kdbench.grid.settings import Dataset

Reader = Callable[[Dataset, Path], DataSource]


def reader(name: str) -> Reader:
    """Return the reader of a data set.

    Raises:
        DataError: unknown name.
    """
    module, function = _module(name)
    result: Reader = getattr(module, function)
    return result


def available(name: str, root: Path) -> tuple[bool, str]:
    """Check whether a data set's files are present, without reading them.

    Args:
        name: a key of ``DATASETS``.
        root: folder of all data sets, as for ``load``; for imagefolder the folder of the images.

    Returns:
        Whether the files are present, and where they are or how to get them.

    Raises:
        DataError: unknown name.
    """
    module, _ = _module(name)
    result: tuple[bool, str] = module.available(name, Path(root).expanduser())
    return result


def absent_folders(dataset: Dataset) -> dict[Path, str]:
    """Return the folders of images that a data set names but that are not there.

    Returns:
        The folder, and what it has to hold.
    """
    absent = {}
    if dataset.root and not available("imagefolder", Path(dataset.root))[0]:
        absent[Path(dataset.root)] = "train/CLASS/* and test/CLASS/*"
    transfer = dataset.transfer
    if transfer and transfer.root and not Path(transfer.root).expanduser().is_dir():
        absent[Path(transfer.root)] = "in any folders"
    return absent


def _module(name: str) -> tuple[ModuleType, str]:
    if name not in DATASETS:
        raise DataError(f"no data set {name!r}; there are {', '.join(DATASETS)}")
    module, _, function = DATASETS[name].reader.partition(".")
    return import_module(f"kdbench.data.readers.{module}"), function
