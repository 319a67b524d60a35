"""What sharing the teacher saves: a cohort of eight learners against the same one by one.

KD, AT, SP and FitNets with two weights each, resnet32x4 -> resnet8x4, batch 64, 3x32x32, 100
classes, fp32, one thread, random images and weights. In the cohort the teacher looks at a batch
once for all learners; one by one, once for each. Both ways take turns, learner by learner, and the
ratio is the median over rounds of processor time.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable

import torch

from kdbench import models, registry
from kdbench.build import dry_run
from kdbench.learner import Learner
from kdbench.method import Features
from kdbench.models.fold import folded
from kdbench.run import Run, Teacher, Term
from kdbench.spec import Dataset, Training
from kdbench.teachers import LoadedTeacher

TEACHER, STUDENT = "resnet32x4", "resnet8x4"
METHODS = ("kd", "at", "sp", "fitnets")
BATCH, CLASSES, SAMPLES, SIZE = 64, 100, 50_000, 32
TARGET = 0.58


def teacher() -> LoadedTeacher:
    """A teacher as the engine asks it."""
    torch.manual_seed(1)
    network = models.create(TEACHER, num_classes=CLASSES, in_channels=3)
    network.eval().requires_grad_(False)
    fast = folded(network).to(memory_format=torch.channels_last)
    return LoadedTeacher(network, fast, None, "")


def learners(asked: LoadedTeacher, labels: torch.Tensor) -> list[Learner]:
    """Every method with its own weight and half of it; KD with a divergence of weight 1 and 0.5."""
    found = []
    for method in METHODS:
        about = registry.describe(method)
        for share in (1.0, 0.5):
            run = Run(
                student=STUDENT,
                teacher=Teacher(TEACHER, "0" * 16),
                dataset=Dataset(name="cifar100"),
                training=Training(batch_size=BATCH, lr=1e-4),
                gamma=1.0,
                alpha=1.0 if about.beta else share,
                temperature=4.0,
                terms=(Term(method, share * about.beta, about.hyper),),
                seed=0,
            )
            learner = Learner(
                run,
                num_classes=CLASSES,
                in_channels=3,
                size=SIZE,
                train_labels=labels,
                teacher=dry_run(asked.network, 3, SIZE),
                teacher_head=asked.head(),
                device=torch.device("cpu"),
            )
            found.append(learner)
    return found


def compare(rounds: int) -> dict[str, object]:
    """Medians over rounds of one step of every learner, together and one by one."""
    torch.manual_seed(0)
    images = torch.randn(BATCH, 3, SIZE, SIZE).to(memory_format=torch.channels_last)
    labels = torch.randint(CLASSES, (SAMPLES,))
    index = torch.randperm(SAMPLES)[:BATCH]
    asked = teacher()
    group = learners(asked, labels)

    def step(learner: Learner, t: Features) -> float:
        return seconds(lambda: learner.train_step(images, labels[index], index, t))

    ratios, apart_ms, shared_ms = [], [], []
    for i in range(rounds + 1):  # the first warms up
        t = asked(images)
        shared = seconds(lambda: asked(images))
        apart = 0.0
        for learner in group:
            shared += step(learner, t)
            apart += seconds(lambda: asked(images)) + step(learner, t)
        if i:
            ratios.append(shared / apart)
            apart_ms.append(1e3 * apart / len(group))
            shared_ms.append(1e3 * shared / len(group))
    ratio = round(statistics.median(ratios), 3)
    return {
        "what": f"learner-step in a cohort of {len(group)} / alone",
        "ratio": ratio,
        "n": rounds,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "learners": list(METHODS),
        "cohort_ms": round(statistics.median(shared_ms), 1),
        "alone_ms": round(statistics.median(apart_ms), 1),
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "target": TARGET,
        "reached": ratio <= TARGET,
    }


def seconds(action: Callable[[], object]) -> float:
    """Processor time of an action."""
    start = time.process_time()
    action()
    return time.process_time() - start


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(compare(options.rounds)), flush=True)


if __name__ == "__main__":
    main()
