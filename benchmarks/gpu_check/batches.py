"""Batches made on the device, compared bit for bit with those made on the CPU."""

from itertools import islice

import torch

from benchmarks.gpu_check import subjects
from benchmarks.gpu_check.check import Check
from benchmarks.subjects import noise
from kdbench.data.batches import train_batches
from kdbench.data.dataset import LoadedData


def run(check: Check) -> None:
    """Compare the first batches of an epoch."""
    data = noise(check.sizes.images, check.sizes.classes)
    count = check.sizes.batches
    same = equal_batches(data, check.device, check.sizes.batch, count)
    check.expect(same == count, "batches have the same bits", same=same, n=count)
    check.outcome.headline = f"{same} of {count} batches have the CPU's bits"


def equal_batches(data: LoadedData, device: torch.device, batch: int, count: int) -> int:
    """Count the batches whose images, labels and positions are the same on both devices."""
    sides = [
        train_batches(side, batch_size=batch, seed=0, epoch=1, crop_pad=4, flip=True)
        for side in (data, subjects.on(data, device))
    ]
    pairs = islice(zip(*sides, strict=True), count)
    return sum(all(torch.equal(x, y.cpu()) for x, y in zip(a, b, strict=True)) for a, b in pairs)
