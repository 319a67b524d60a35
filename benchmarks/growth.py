"""Growth of a training step's time with the size of the cohort and of the batch.

resnet32x4 -> resnet8x4, 3x32x32, 100 classes, fp32, one thread, images of noise; processor time.

- Cohorts of 1, 2, 4, 8 and 16 learners (KD, AT, SP and FitNets in turn) run the teacher once per
  step. ``ratio`` is a learner's time per step in the cohort over its time with a separate teacher,
  measured at the same moment.
- Batches of 16 to 256 images, KD alone: ``ratio`` is the time per image over that in a batch of 64.

Growth is linear or better if no ratio rises.
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
"""Cohort size -> largest ratio that meets the target."""


def by_size(data: LoadedData, loaded: LoadedTeacher, sizes: list[int], rounds: int) -> None:
    """Print a line for each size of a cohort."""
    learners = [learner(METHODS[i % len(METHODS)], data, loaded) for i in range(max(sizes))]
    images, labels, index = next(
        train_batches(data, batch_size=64, seed=0, epoch=1, crop_pad=4, flip=True)
    )
    teacher_times, step_times = [], []
    for i in range(rounds + 1):  # the first warms up
        t = loaded(images)
        forwards, steps = [], []
        for member in learners:
            forwards.append(seconds(partial(loaded, images)))
            steps.append(seconds(partial(member.train_step, images, labels, index, t)))
        if i:
            teacher_times.append(forwards)
            step_times.append(steps)
    pairs = list(zip(teacher_times, step_times, strict=True))
    for size in sizes:
        together = [sum(steps[:size]) + forwards[0] for forwards, steps in pairs]
        alone = [sum(steps[:size]) + sum(forwards[:size]) for forwards, steps in pairs]
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


def by_batch(data: LoadedData, loaded: LoadedTeacher, sizes: list[int], rounds: int) -> None:
    """Print a line for each size of a batch."""
    steps: dict[int, Callable[[], None]] = {}
    for size in sizes:
        kd = learner("kd", data, loaded, batch_size=size)
        batch = next(train_batches(data, batch_size=size, seed=0, epoch=1))
        steps[size] = partial(step, kd, loaded, batch)
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
    kd: Learner, loaded: LoadedTeacher, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    """Run the teacher, and train a learner."""
    kd.train_step(*batch, loaded(batch[0]))


def seconds(action: Callable[[], object]) -> float:
    """Return the processor time of an action."""
    began = time.process_time()
    action()
    return time.process_time() - began


def main() -> None:
    """Measure, and print a JSON line per size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--batches", type=int, nargs="*", default=list(BATCHES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    data = noise(50_000, CLASSES)
    loaded = teacher(data)
    by_size(data, loaded, options.sizes, options.rounds)
    by_batch(data, loaded, options.batches, options.rounds)


if __name__ == "__main__":
    main()
