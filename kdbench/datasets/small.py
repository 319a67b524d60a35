"""Data sets that need no files: scikit-learn's digits, and a synthetic one for tests."""

from pathlib import Path

import torch

from kdbench.datasets.source import Source, Split, draw
from kdbench.rng import generator
from kdbench.spec import Dataset


def digits(dataset: Dataset, root: Path) -> Source:
    from sklearn.datasets import load_digits

    found = load_digits()
    images = torch.from_numpy(found.images).to(torch.uint8)[..., None] * 15  # 0..16 -> 0..240
    every = Split(images, torch.from_numpy(found.target).long())
    classes = tuple(str(name) for name in found.target_names)
    wanted = [dataset.per_class or 90] * len(classes)
    seed = dataset.subset_seed or 0
    chosen, others = draw(every.labels, wanted, seed, "subset", classes, spare=1)
    return Source(every.take(chosen), every.take(others), classes)


def synthetic(dataset: Dataset, root: Path) -> Source:
    """Ten coarse coloured patterns under noise; integers only, so the same on any machine."""
    stream, size = generator(0, "synthetic"), dataset.size or 32
    patterns = torch.randint(64, 192, (10, 4, 4, 3), generator=stream)
    cell = torch.arange(size) * 4 // size
    patterns = patterns[:, cell][:, :, cell]

    def sample(count: int) -> Split:
        labels = torch.arange(count) % 10
        noise = torch.randint(-64, 64, (count, size, size, 3), generator=stream)
        return Split((patterns[labels] + noise).to(torch.uint8), labels)

    return Source(sample(512), sample(256), tuple(f"pattern {k}" for k in range(10)))
