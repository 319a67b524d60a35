"""What a run will cost before anything is trained: operations and memory, and so hours."""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import nn

from kdbench.counting import NetworkCost, Shape, TermsCost, adapter_cost, network_cost, term_cost
from kdbench.run import Run, Term
from kdbench.spec import DATASETS, Dataset

TRAIN_IMAGES = {
    "digits": 900, "fashion_mnist": 60000, "cifar10": 50000, "cifar100": 50000, "stl10": 5000,
}  # fmt: skip
TEST_IMAGES = {
    "digits": 897, "fashion_mnist": 10000, "cifar10": 10000, "cifar100": 10000, "stl10": 8000,
}  # fmt: skip
OTHER_IMAGES = 512
"""Training images of the synthetic data set."""


@dataclass(frozen=True)
class Estimate:
    """Cost of one run trained alone.

    Attributes:
        flops: of the whole training, forwards, backwards, teacher and evaluations.
        memory: bytes of weights, optimiser and what one step keeps for its backward pass.
        problem: how it will end without a number ("skipped: why", "fails: why"), or "".
        rough: the method was counted on another pair.
    """

    flops: float
    memory: float
    problem: str = ""
    rough: bool = False


@cache
def shape(dataset: Dataset) -> Shape:
    """The size of a data set; of a folder of images it counts the files."""
    known = DATASETS[dataset.name]
    if known is None:
        root = Path(dataset.root or "")
        classes = sorted(p for p in root.glob("train/*") if p.is_dir())
        train = sum(sum(1 for _ in p.iterdir()) for p in classes)
        test = sum(sum(1 for _ in p.iterdir()) for p in root.glob("test/*") if p.is_dir())
        channels, size, k = 3, 32, max(1, len(classes))
    else:
        channels, size, k = known
        train = TRAIN_IMAGES.get(dataset.name, OTHER_IMAGES)
        test = TEST_IMAGES.get(dataset.name, OTHER_IMAGES // 2)
    if dataset.per_class:
        rest = train + test
        train = min(train, dataset.per_class * k)
        test = rest - train if dataset.name == "digits" else test
    if dataset.validation:
        train = round(train * (1 - dataset.validation))
    return Shape(channels, dataset.size or size, k, train, test)


class Estimator:
    """Estimates runs, counting each method on each pair once.

    Attributes:
        seconds: left to spend on counting. After that a method that was counted on another pair is
            not counted again: its cost is taken to grow as adapters would.
    """

    def __init__(self, seconds: float = math.inf) -> None:
        self.seconds = seconds
        self._counted: dict[tuple[object, ...], TermsCost] = {}
        self._known: dict[str, tuple[TermsCost, tuple[float, ...]]] = {}

    def __call__(self, run: Run) -> Estimate:
        """What training this run alone costs, whatever its seed."""
        of, training = shape(run.dataset), run.training
        teacher = run.teacher.arch if run.teacher else None
        steps = of.train // training.batch_size * training.epochs
        if not steps:
            told = f"{of.train} training images do not fill a batch of {training.batch_size}"
            return Estimate(0.0, 0.0, f"fails: {told}")
        extra, rough = self.terms(run.student, teacher, of, training.batch_size, run.terms)
        if extra.incompatible:
            return Estimate(0.0, 0.0, f"skipped: {extra.incompatible}", rough)
        student = network_cost(run.student, of)
        guide = network_cost(teacher, of) if teacher else NetworkCost()
        images = steps * training.batch_size
        phase = run.pretrain[0] / training.epochs if run.pretrain and extra.pretrains else 0.0
        # A backward pass costs two forwards.
        per_image = 2 * (3 * student.macs + guide.macs + 3 * extra.macs)
        flops = images * (1 + phase) * per_image + 2 * training.epochs * of.test * student.macs
        # Weight, gradient and momentum of what learns; what a step keeps; what the teacher needs.
        memory = 3 * 4 * (student.parameters + extra.parameters) + extra.kept + extra.remembered
        memory += training.batch_size * (student.kept + guide.widest) + 4 * guide.parameters
        return Estimate(float(flops), float(memory), rough=rough)

    def terms(
        self, student: str, teacher: str | None, of: Shape, batch_size: int, terms: Sequence[Term]
    ) -> tuple[TermsCost, bool]:
        """What a run's methods add, whatever their weights; and whether that is a rough guess."""
        total, rough = TermsCost(), False
        for term in terms:
            part, guessed = self._term(student, teacher, of, batch_size, term)
            total, rough = total + part, rough or guessed
        return total, rough

    def _term(
        self, student: str, teacher: str | None, of: Shape, batch_size: int, term: Term
    ) -> tuple[TermsCost, bool]:
        name = f"{term.where} {bool(term.beta)}"
        described = f"{name} {json.dumps(term.hyper, sort_keys=True)}"
        key = (student, teacher, of.channels, of.size, of.classes, of.train, batch_size, described)
        if key in self._counted:
            return self._counted[key], False
        size = adapter_cost(student, teacher, of)
        near = self._known.get(described) or self._known.get(name)
        if near and self.seconds <= 0:
            counted, there = near
            return counted.scaled(*(a / b for a, b in zip(size, there, strict=True))), True
        began = time.process_time()
        counted = term_cost(student, teacher, of, batch_size, term)
        self.seconds -= time.process_time() - began
        self._counted[key] = counted
        if not counted.incompatible:
            self._known[described] = self._known[name] = (counted, size)
        return counted, False


def machine_flops(threads: int = 1, seconds: float = 0.5) -> float:
    """FLOP/s of this machine in training a small stack of 3x3 convolutions, measured now."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    net = nn.Sequential(*[nn.Conv2d(64, 64, 3, padding=1, bias=False) for _ in range(3)])
    images = torch.randn(16, 64, 16, 16).to(memory_format=torch.channels_last)
    net.to(memory_format=torch.channels_last)
    net(images).sum().backward()
    done, began = 0, time.perf_counter()
    while not done or time.perf_counter() - began < seconds:
        net(images).sum().backward()
        done += 1
    elapsed = time.perf_counter() - began
    torch.set_num_threads(before)
    return done * 2 * 3 * 3 * 16 * 64 * 64 * 9 * 16 * 16 / elapsed
