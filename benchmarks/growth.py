"""How the time of a training step grows: with the size of a cohort, and with the batch.

resnet32x4 -> resnet8x4, 3x32x32, 100 classes, fp32, one thread, images of noise; processor time.

- Cohorts of 1, 2, 4, 8 and 16 learners (KD, AT, SP and FitNets in turn) ask the teacher once a
  step. ``ratio`` is a learner-step's time in the cohort over the same learner's with a teacher of
  its own, measured at the same moment.
- Batches of 16 to 256 images, KD alone: ``ratio`` is an image's time over that in a batch of 64.

Growth is linear or better where no ratio rises.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.subjects import CLASSES, learner, machine, noise, teacher
from kdbench.data.batches import train_batches
from kdbench.data.dataset import LoadedData
from kdbench.training.learner import Learner
from kdbench.training.memory import keep_memory
from kdbench.training.teacher import LoadedTeacher

METHODS = ("kd", "at", "sp", "fitnets")
SIZES = (1, 2, 4, 8, 16)
BATCHES = (16, 32, 64, 128, 256)
TARGET = {8: 0.58}
"""Cohort size -> ratio that is asked for."""


def by_size(data: LoadedData, asked: LoadedTeacher, sizes: list[int], rounds: int) -> None:
    """A line for each size of a cohort."""
    every = [learner(METHODS[i % len(METHODS)], data, asked) for i in range(max(sizes))]
    images, labels, index = next(
        train_batches(data, batch_size=64, seed=0, epoch=1, crop_pad=4, flip=True)
    )
    asked_s, steps = [], []
    for i in range(rounds + 1):  # the first warms up
        t = asked(images)
        own, spent = [], []
        for one in every:
            own.append(seconds(partial(asked, images)))
            spent.append(seconds(partial(one.train_step, images, labels, index, t)))
        if i:
            asked_s.append(own)
            steps.append(spent)
    for size in sizes:
        together = [sum(s[:size]) + a[0] for a, s in zip(asked_s, steps, strict=True)]
        alone = [sum(s[:size]) + sum(a[:size]) for a, s in zip(asked_s, steps, strict=True)]
        ratio = statistics.median(x / y for x, y in zip(together, alone, strict=True))
        line = {
            "what": "learner-step in a cohort / alone",
            "learners": size,
            "ratio": round(ratio, 3),
            "ms": round(1e3 * statistics.median(together) / size, 1),
            "ms_all": round(1e3 * statistics.median(together), 1),
            "n": rounds,
        }
        goal = TARGET.get(size)
        judged = {"target": goal, "reached": ratio <= goal} if goal else {}
        print(json.dumps(line | judged | machine()), flush=True)


def by_batch(data: LoadedData, asked: LoadedTeacher, sizes: list[int], rounds: int) -> None:
    """A line for each size of a batch."""
    steps: dict[int, Callable[[], None]] = {}
    for size in sizes:
        one = learner("kd", data, asked, batch_size=size)
        batch = next(train_batches(data, batch_size=size, seed=0, epoch=1))
        steps[size] = partial(step, one, asked, batch)
    times: dict[int, list[float]] = {size: [] for size in sizes}
    for i in range(rounds + 1):  # the first warms up
        for size, action in steps.items():
            spent = seconds(action) / size
            times[size] += [spent] if i else []
    for size in sizes:
        ratio = statistics.median(a / b for a, b in zip(times[size], times[64], strict=True))
        line = {
            "what": "an image's time in a batch / in a batch of 64",
            "batch": size,
            "ratio": round(ratio, 3),
            "ms": round(1e3 * statistics.median(times[size]) * size, 1),
            "n": rounds,
        }
        print(json.dumps(line | machine()), flush=True)


def step(
    one: Learner, asked: LoadedTeacher, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    """Ask the teacher, and train a learner."""
    one.train_step(*batch, asked(batch[0]))


def seconds(action: Callable[[], object]) -> float:
    """Processor time of an action."""
    began = time.process_time()
    action()
    return time.process_time() - began


def main() -> None:
    """Measure, and print a JSON line a size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--batches", type=int, nargs="*", default=list(BATCHES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    data = noise(50_000, CLASSES)
    asked = teacher(data)
    by_size(data, asked, options.sizes, options.rounds)
    by_batch(data, asked, options.batches, options.rounds)


if __name__ == "__main__":
    main()
