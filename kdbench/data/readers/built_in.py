"""Data sets that need no download: scikit-learn's digits, and synthetic images for tests."""

import importlib.util
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from kdbench.data.readers.base import DataSource, Split, draw
from kdbench.grid.settings import Dataset
from kdbench.rng import generator


def available(name: str, root: Path) -> tuple[bool, str]:
    """Name the source of a built-in data set, which is always available."""
    return True, "comes with scikit-learn" if name == "digits" else "generated, for tests"


def digits(dataset: Dataset, root: Path) -> DataSource:
    """Read scikit-learn's 8x8 digits; the training set is drawn class-balanced."""
    table = torch.from_numpy(_digits())
    images = table[:, :-1].reshape(-1, 8, 8, 1).to(torch.uint8) * 15  # 0..16 -> 0..240
    every = Split(images, table[:, -1].long())
    classes = tuple(map(str, range(10)))
    wanted = [dataset.per_class or 90] * len(classes)
    seed = dataset.subset_seed or 0
    chosen, others = draw(every.labels, wanted, seed, "subset", classes, spare=1)
    return DataSource(every.take(chosen), every.take(others), classes)


def _digits() -> NDArray[np.float64]:
    """Read the table of scikit-learn's digits: 64 grey values and the class, [1797, 65]."""
    # Read the file directly: importing sklearn.datasets takes as long as importing torch.
    spec = importlib.util.find_spec("sklearn")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(place) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return np.loadtxt(path, delimiter=",")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return np.column_stack((bunch.data, bunch.target))


def synthetic(dataset: Dataset, root: Path) -> DataSource:
    """Generate ten coarse coloured patterns with noise; integers only, so equal on any machine."""
    stream, size = generator(0, "synthetic"), dataset.size or 32
    patterns = torch.randint(64, 192, (10, 4, 4, 3), generator=stream)
    cell = torch.arange(size) * 4 // size
    patterns = patterns[:, cell][:, :, cell]

    def sample(count: int) -> Split:
        labels = torch.arange(count) % 10
        noise = torch.randint(-64, 64, (count, size, size, 3), generator=stream)
        return Split((patterns[labels] + noise).to(torch.uint8), labels)

    return DataSource(sample(512), sample(256), tuple(f"pattern {k}" for k in range(10)))
