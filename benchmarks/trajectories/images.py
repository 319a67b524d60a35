"""A small folder of images of 100 classes, because the authors' code expects CIFAR-100."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = 100


def batch_size(steps: int) -> int:
    """Return a batch size at which ``steps`` batches hold an image of every class."""
    return max(32, -(-CLASSES // steps))


def write_images(folder: Path, count: int) -> None:
    """Write ``count`` training images and one test image of each class, 32x32, in colour."""
    random = np.random.default_rng(0)
    coarse = random.integers(64, 192, (CLASSES, 8, 8, 3)).repeat(4, 1).repeat(4, 2)
    for part, n in (("train", count), ("test", CLASSES)):
        for i in range(n):
            label = i % CLASSES
            noisy = coarse[label] + random.integers(-64, 64, coarse[label].shape)
            file = folder / part / f"{label:02}" / f"{i:05}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noisy.astype(np.uint8)).save(file)
