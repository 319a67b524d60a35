"""What a training step costs with each method, against KD's; both with the teacher's forward.

resnet32x4 -> resnet8x4, batch 64, 3x32x32, 100 classes, 50,000 training labels, fp32, one thread,
random images and weights. KD's step goes before every step of a method, and the ratio is the median
over rounds of the ratios of two neighbours. Time is the process's own processor time: other
programs, which slow both down, move the ratio little. ``flop_floor`` is the ratio of the FLOPs of
convolutions and matrix products, what a machine that does nothing else would reach.
``peak_mb_above_kd`` compares the peaks of fresh processes that train four steps.
"""

import argparse
import json
import os
import platform
import re
import resource
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from kdbench import models, registry
from kdbench.build import dry_run
from kdbench.learner import Learner
from kdbench.models.fold import folded
from kdbench.run import Run, Teacher, Term
from kdbench.spec import Dataset, Training
from kdbench.teachers import LoadedTeacher

TEACHER, STUDENT = "resnet32x4", "resnet8x4"
BATCH, CLASSES, SAMPLES, SIZE = 64, 100, 50_000, 32
TARGET = 1.20
"""Of KD's step, for every method but SemCKD."""
ABOVE_FLOOR = {"semckd": 1.08}
"""Method -> what its step may take, of its own floor."""
MEMORY = {"crd": 150.0, "nst": 100.0}
"""Method -> MB its peak may lie above KD's."""


class Inputs(NamedTuple):
    """One batch, and the labels of the training set it comes from."""

    images: Tensor
    labels: Tensor
    positions: Tensor
    train_labels: Tensor


def inputs() -> Inputs:
    """Random images whose labels agree with the training set's."""
    torch.manual_seed(0)
    images = torch.randn(BATCH, 3, SIZE, SIZE).to(memory_format=torch.channels_last)
    train_labels = torch.randint(CLASSES, (SAMPLES,))
    positions = torch.randperm(SAMPLES)[:BATCH]
    return Inputs(images, train_labels[positions], positions, train_labels)


def teacher(images: Tensor) -> LoadedTeacher:
    """A teacher as the engine asks it, its batch norms having seen the images."""
    torch.manual_seed(1)
    network = models.create(TEACHER, num_classes=CLASSES, in_channels=3)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network(images)
    fast = folded(network).to(memory_format=torch.channels_last)
    return LoadedTeacher(network.eval(), fast, None, "")


class Subject:
    """A method in training, in one of its phases."""

    def __init__(self, method: str, phase: str, given: Inputs, teacher: LoadedTeacher) -> None:
        about = registry.describe(method)
        run = Run(
            student=STUDENT,
            teacher=Teacher(TEACHER, "0" * 16) if about.needs_teacher else None,
            dataset=Dataset(name="cifar100"),
            training=Training(batch_size=BATCH, lr=1e-4),
            gamma=about.objective.get("gamma", 1.0),
            alpha=about.objective.get("alpha", 1.0) if about.needs_teacher else 0.0,
            temperature=4.0,
            terms=(Term(method, about.beta, about.hyper),),
            seed=0,
            pretrain=(1, 1e-4) if about.has_pretrain else None,
        )
        self.given, self.teacher = given, teacher
        self.learner = Learner(
            run,
            num_classes=CLASSES,
            in_channels=3,
            size=SIZE,
            train_labels=given.train_labels,
            teacher=dry_run(teacher.network, 3, SIZE) if about.needs_teacher else None,
            teacher_head=teacher.head() if about.needs_teacher else None,
            device=torch.device("cpu"),
        )
        self.phases = list(dict.fromkeys([str(self.learner.phase), "train"]))
        if self.learner.phase != phase:
            self.learner.next_epoch()
        self.method, self.phase = method, phase

    def step(self) -> float:
        """Processor seconds of one step, the teacher's forward included."""
        images, labels, positions, _ = self.given
        start = time.process_time()
        t = self.teacher(images) if self.learner.needs_teacher else None
        self.learner.train_step(images, labels, positions, t)
        return time.process_time() - start

    def flops(self) -> int:
        """Of one step."""
        counter = FlopCounterMode(display=False)
        with counter:
            self.step()
        return counter.get_total_flops()


def peak(method: str, phase: str) -> float:
    """Peak memory in MB of this process after four steps; to be called in a fresh one."""
    torch.set_num_threads(1)
    given = inputs()
    subject = Subject(method, phase, given, teacher(given.images))
    for _ in range(4):
        subject.step()
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss remembers the process that started this one
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        if found:
            return int(found[1]) / 1024
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (2**20 if platform.system() == "Darwin" else 1024)


def peak_of(subject: Subject) -> float:
    """Its ``peak``, in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(peak, subject.method, subject.phase).result()


def compare(names: list[str], rounds: int) -> None:
    """Print one JSON object a method and phase."""
    given = inputs()
    asked = teacher(given.images)
    kd = Subject("kd", "train", given, asked)
    floor, of_kd = kd.flops(), statistics.median(peak_of(kd) for _ in range(3))
    for name in names:
        for phase in Subject(name, "train", given, asked).phases:
            subject = Subject(name, phase, given, asked)
            flops = subject.flops() / floor  # this step warms up, too
            times = [(kd.step(), subject.step()) for _ in range(rounds)]
            row: dict[str, Any] = {
                "what": name,
                "phase": phase,
                "ratio": round(statistics.median(mine / other for other, mine in times), 3),
                "flop_floor": round(flops, 3),
                "peak_mb_above_kd": round(peak_of(subject) - of_kd, 1),
                "n": rounds,
                "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
                "step_ms": round(1e3 * statistics.median(mine for _, mine in times), 1),
                "kd_ms": round(1e3 * statistics.median(other for other, _ in times), 1),
                "kd_peak_mb": round(of_kd, 1),
                "load": round(os.getloadavg()[0], 1),
                "torch": torch.__version__,
            }
            print(json.dumps(row | judged(row)), flush=True)


def judged(row: dict[str, Any]) -> dict[str, Any]:
    """What was aimed at, and whether it was reached."""
    share = ABOVE_FLOOR.get(row["what"])
    target = round(share * row["flop_floor"], 3) if share else TARGET
    room = MEMORY.get(row["what"])
    reached = row["ratio"] <= target and (room is None or row["peak_mb_above_kd"] <= room)
    return {"target": target, "reached": reached} | ({"target_mb": room} if room else {})


def main() -> None:
    """Measure all methods, or those asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=registry.names(), metavar="METHOD")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    compare(options.only, options.rounds)


if __name__ == "__main__":
    main()
