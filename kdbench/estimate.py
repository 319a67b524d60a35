"""What a run will cost before anything is trained: operations, hours, memory."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from kdbench import models, registry
from kdbench.learner import dry_run
from kdbench.method import Batch, Features, Incompatible, Setup
from kdbench.models import cost
from kdbench.run import Run, Term
from kdbench.spec import DATASETS, Dataset

TRAIN_IMAGES = {"digits": 900, "fashion_mnist": 60000, "cifar10": 50000, "cifar100": 50000}
TEST_IMAGES = {"digits": 897, "fashion_mnist": 10000, "cifar10": 10000, "cifar100": 10000}
OTHER_IMAGES = 512
"""Training images of the synthetic data set."""


@dataclass(frozen=True)
class Shape:
    """What of a data set decides the cost of training on it."""

    channels: int
    size: int
    classes: int
    train: int
    test: int


@dataclass(frozen=True)
class Estimate:
    """Cost of one run trained alone.

    Attributes:
        flops: of the whole training, forwards, backwards, teacher and evaluations.
        memory: bytes of weights, optimiser and activations of one step.
        incompatible: the reason why the method cannot work on this pair, or "".
    """

    flops: float
    memory: float
    incompatible: str = ""


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


def estimate(run: Run) -> Estimate:
    """What training this run costs, whatever its seed."""
    of = shape(run.dataset)
    teacher = run.teacher.arch if run.teacher else None
    extra = terms_cost(run.student, teacher, of, run.training.batch_size, run.terms)
    student = cost.macs(run.student, of.channels, of.size, of.classes)
    guide = cost.macs(teacher, of.channels, of.size, of.classes) if teacher else 0
    steps = of.train // run.training.batch_size * run.training.epochs
    images = steps * run.training.batch_size
    phase = run.pretrain[0] / run.training.epochs if run.pretrain else 0.0
    # A backward pass costs two forwards.
    per_image = 2 * (3 * student + guide + 3 * extra.macs)
    flops = images * (1 + phase) * per_image + 2 * run.training.epochs * of.test * student
    held, activations = _held(run.student, of)
    memory = 4 * (3 * (held + extra.parameters) + run.training.batch_size * 2 * activations)
    if teacher:
        memory += 4 * _held(teacher, of)[0]
    return Estimate(float(flops), float(memory), extra.incompatible)


@dataclass(frozen=True)
class TermsCost:
    """What a run's methods add: MACs an image, parameters, or why they cannot work here."""

    macs: float = 0.0
    parameters: int = 0
    incompatible: str = ""


_COUNTED: dict[tuple[object, ...], TermsCost] = {}


def terms_cost(
    student: str, teacher: str | None, of: Shape, batch_size: int, terms: Sequence[Term]
) -> TermsCost:
    """What the methods' terms add on a pair; counted once for all seeds."""
    described = json.dumps([term.canonical for term in terms], sort_keys=True, default=str)
    key = (student, teacher, of, batch_size, described)
    if key not in _COUNTED:
        _COUNTED[key] = _count(student, teacher, of, min(batch_size, 16), terms)
    return _COUNTED[key]


def _count(
    student: str, teacher: str | None, of: Shape, b: int, terms: Sequence[Term]
) -> TermsCost:
    s = _features(student, of, b)
    t = _features(teacher, of, b) if teacher else s
    labels = torch.arange(of.classes).repeat(4)
    batch = Batch(
        images=torch.zeros(b, of.channels, of.size, of.size),
        labels=torch.arange(b) % of.classes,
        index=torch.arange(b) % len(labels),
    )
    head = nn.Linear(t.embedding.shape[1], of.classes).requires_grad_(False)
    setup = Setup(s, t, labels, b, of.classes, head)
    flops, parameters = 0.0, 0
    for term in terms:
        with torch.random.fork_rng():
            try:
                method = registry.load(term.where)(setup, **term.hyper)
            except Incompatible as reason:
                return TermsCost(incompatible=str(reason))
        parameters += sum(p.numel() for p in method.parameters() if p.requires_grad)
        if term.beta:
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                method.loss(s, t, batch)
            flops += counter.get_total_flops() / b
    return TermsCost(flops / 2, parameters)


@cache
def _features(name: str, of: Shape, batch: int) -> Features:
    """Features of the right shapes; a term's cost does not depend on their values."""
    network = models.create(name, num_classes=of.classes, in_channels=of.channels)
    two = dry_run(network, of.channels, of.size)

    def grown(x: Tensor) -> Tensor:
        return x[:1].repeat(batch, *[1] * (x.dim() - 1))

    return Features(
        stem=grown(two.stem),
        stages=tuple(map(grown, two.stages)),
        preacts=tuple(map(grown, two.preacts)),
        embedding=grown(two.embedding),
        logits=grown(two.logits),
    )


@cache
def _held(name: str, of: Shape) -> tuple[int, int]:
    """Parameters, and activations of one image that a backward pass needs."""
    with torch.device("meta"):
        network = models.create(name, num_classes=of.classes, in_channels=of.channels)
    total = 0

    def count(module: nn.Module, args: object, output: object) -> None:
        nonlocal total
        if isinstance(output, Tensor):
            total += output.numel()

    for module in network.modules():
        if not list(module.children()):
            module.register_forward_hook(count)
    network.eval()
    with torch.no_grad():
        network(torch.empty(1, of.channels, of.size, of.size, device="meta"))
    return cost.params(network), total


def machine_flops(threads: int = 1, seconds: float = 0.5) -> float:
    """FLOP/s of this machine in training a small stack of 3x3 convolutions, measured now."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    net = nn.Sequential(*[nn.Conv2d(64, 64, 3, padding=1, bias=False) for _ in range(3)])
    images = torch.randn(16, 64, 16, 16).to(memory_format=torch.channels_last)
    net.to(memory_format=torch.channels_last)
    done, end = 0, time.perf_counter() + seconds
    net(images).sum().backward()
    began = time.perf_counter()
    while time.perf_counter() < end:
        net(images).sum().backward()
        done += 1
    elapsed = time.perf_counter() - began
    torch.set_num_threads(before)
    return done * 2 * 3 * 3 * 16 * 64 * 64 * 9 * 16 * 16 / elapsed
