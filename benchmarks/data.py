"""Batches of kdbench against torchvision transforms on PIL images in a DataLoader.

Both shuffle, zero-pad by 4, crop 32x32, flip, scale and normalise the same in-memory images, batch
64. They take turns in one process; the ratio compares median times per batch. A busy machine
distorts the ratio, most of all with more than one thread: ``load`` is the load, including the
loader's own workers, and ``ratio_of_best`` compares the best rounds.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Iterable
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader

from benchmarks.plain.loop import Pictures
from benchmarks.subjects import noise
from kdbench.data.batches import train_batches

BATCH = 64


def seconds_per_batch(batches: Iterable[Any], count: int) -> float:
    """Return the time per batch of ``count`` batches, including start-up of workers and epoch."""
    start = time.perf_counter()
    taken = sum(1 for _ in islice(batches, count))
    return (time.perf_counter() - start) / taken


def compare(n: int, rounds: int, workers: int, threads: int) -> dict[str, Any]:
    """Return medians over interleaved rounds of one epoch over n images each."""
    torch.set_num_threads(threads)
    data = noise(n)
    loader = DataLoader(
        Pictures(data),
        BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    steps = n // BATCH
    ours: list[float] = []
    theirs: list[float] = []
    for i in range(rounds + 1):  # the first, which starts workers and pads images, is not counted
        batches = train_batches(data, batch_size=BATCH, seed=0, epoch=i, crop_pad=4, flip=True)
        ours.append(seconds_per_batch(batches, steps))
        theirs.append(seconds_per_batch(loader, steps))
    mine, other = statistics.median(ours[1:]), statistics.median(theirs[1:])
    return {
        "what": f"batches per second, kdbench / torchvision+PIL DataLoader, {threads} threads",
        "ratio": round(other / mine, 1),
        "n": rounds,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "kdbench_ms": round(1e3 * mine, 3),
        "torchvision_ms": round(1e3 * other, 3),
        "batch_size": BATCH,
        "workers": workers,
        "threads": threads,
        "images": n,
        "ratio_of_best": round(min(theirs[1:]) / min(ours[1:]), 1),
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
    }


def main() -> None:
    """Print one JSON object per line, for one thread and for torch's default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=6400)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    default = torch.get_num_threads()
    for threads in sorted({1, default}):
        row = compare(options.images, options.rounds, options.workers, threads)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
