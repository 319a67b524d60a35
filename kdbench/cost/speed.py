"""Training speed of a CPU: short measurements of networks as the engine runs them.

A small network reaches a fraction of a processor's peak, a large network most of it, so operation
counts alone do not predict time. ``kdbench.cost.gpu_speed`` measures a GPU.
"""

import math
import time
from collections.abc import Callable
from functools import cached_property, partial

import torch
from torch import nn

from kdbench.cost.counting import DataShape, network_cost
from kdbench.cost.estimate import RunCost, data_shape
from kdbench.data.batches import train_batches
from kdbench.data.dataset import LoadedData
from kdbench.grid.run import Run
from kdbench.models import zoo
from kdbench.models.fold_batch_norm import folded
from kdbench.training.evaluation import BATCH, evaluate
from kdbench.training.learner import Learner
from kdbench.training.teacher import LoadedTeacher

MOMENT = 0.1
"""Longest duration of a measured step in seconds; slower networks get a smaller batch."""
REPEATS = 2


class Speed:
    """Estimator of the duration of runs on this machine's CPU.

    ``precision: tf32``, which CPUs do not have, is measured as fp32.

    Attributes:
        device: name of the measured device.
        threads: threads per worker.
        seconds: time left for measurements. After that, a network is assumed to be as fast as the
            measured network closest in size.
    """

    device = "this CPU"

    def __init__(self, threads: int = 1, seconds: float = 1.0) -> None:
        self.threads, self.seconds = threads, seconds
        self._rates: dict[str, dict[tuple[object, ...], tuple[float, float]]] = {}

    def seconds_of(self, run: Run, cost: RunCost) -> float:
        """Return the duration in seconds of a run that trains alone."""
        shape, training = data_shape(run.dataset), run.training
        operations, b = cost.operations, training.batch_size
        if not cost.flops:
            return 0.0
        step = self._rate("step", run.student, run, shape, b)
        test = self._rate("test", run.student, run, shape, min(BATCH, shape.test))
        teacher = self._rate("teacher", run.teacher.arch, run, shape, b) if run.teacher else step
        seconds = operations.student / step + operations.evaluation / test
        # Methods' operations work on feature maps like the teacher's.
        seconds += (operations.teacher + operations.methods) / teacher
        return seconds

    @cached_property
    def flops(self) -> float:
        """FLOP/s of large convolutions, which few other operations reach."""
        return machine_flops(self.threads)

    def _rate(self, kind: str, name: str, run: Run, shape: DataShape, batch: int) -> float:
        """Return a network's FLOP/s in a training step, in a test or as a teacher."""
        rates = self._rates.setdefault(kind, {})
        key = (name, shape, batch, run.training.crop_pad, run.training.flip)
        size = math.log(max(1, network_cost(name, shape).macs))
        if key not in rates:
            if self.seconds <= 0 and rates:
                return min(rates.values(), key=lambda other: abs(other[0] - size))[1]
            began = time.process_time()
            rates[key] = (size, self._measure(kind, name, run, shape, batch))
            self.seconds -= (time.process_time() - began) / self.threads
        return rates[key][1]

    def _measure(self, kind: str, name: str, run: Run, shape: DataShape, batch: int) -> float:
        image_flops = 2 * network_cost(name, shape).macs * (3 if kind == "step" else 1)
        b = max(2, min(batch, math.floor(MOMENT * self.flops / max(1, image_flops))))
        prepare = {"step": _training_step, "test": _evaluation, "teacher": _teacher_forward}[kind]
        with torch.random.fork_rng(devices=()):
            seconds = _fastest(prepare(name, run, shape, b), self.threads, MOMENT / 3)
        return b * image_flops / seconds


def _training_step(name: str, run: Run, shape: DataShape, b: int) -> Callable[[], object]:
    """Return a training step without teacher and methods that also prepares its batch."""
    learner = _learner(name, run, shape, b)
    data = noise(shape, 2 * b)
    training = run.training

    def step() -> None:
        images, labels, index = next(
            train_batches(
                data, batch_size=b, seed=0, epoch=1, crop_pad=training.crop_pad, flip=training.flip
            )
        )
        learner.train_step(images, labels, index, None)

    return step


def _evaluation(name: str, run: Run, shape: DataShape, b: int) -> Callable[[], object]:
    network = zoo.create(name, num_classes=shape.classes, in_channels=shape.channels).eval()
    network.to(memory_format=torch.channels_last)
    batches = [(_images(shape, b), torch.zeros(b, dtype=torch.int64))]
    return partial(evaluate, lambda x: network(x).logits, batches, torch.device("cpu"))


def _teacher_forward(name: str, run: Run, shape: DataShape, b: int) -> Callable[[], object]:
    network = zoo.create(name, num_classes=shape.classes, in_channels=shape.channels)
    fast = folded(network).to(memory_format=torch.channels_last)
    return partial(LoadedTeacher(network, fast, None, ""), _images(shape, b))


def _images(shape: DataShape, b: int) -> torch.Tensor:
    images = torch.randn(b, shape.channels, shape.size, shape.size)
    return images.to(memory_format=torch.channels_last)


def _learner(name: str, run: Run, shape: DataShape, b: int) -> Learner:
    """Return a learner without teacher, with epochs too long to end here."""
    run_alone = Run(
        student=name,
        teacher=None,
        dataset=run.dataset,
        training=run.training.model_copy(update={"batch_size": b}),
        gamma=1.0,
        alpha=0.0,
        temperature=1.0,
        terms=(),
        seed=0,
    )
    return Learner(
        run_alone,
        num_classes=shape.classes,
        in_channels=shape.channels,
        size=shape.size,
        train_labels=torch.zeros(100 * b, dtype=torch.int64),
        teacher=None,
        teacher_head=None,
        device=torch.device("cpu"),
    )


def noise(shape: DataShape, n: int, device: torch.device | str = "cpu") -> LoadedData:
    """Return ``n`` images of noise in the shape of a data set, for training and for tests."""
    images = torch.randint(256, (n, shape.size, shape.size, shape.channels), dtype=torch.uint8)
    labels = torch.arange(n) % shape.classes
    images, labels = images.to(device), labels.to(device)
    return LoadedData(
        name="noise",
        title="noise",
        classes=tuple(map(str, range(shape.classes))),
        train_images=images,
        train_labels=labels,
        test_images=images,
        test_labels=labels,
        val_images=None,
        val_labels=None,
        mean=(0.5,) * shape.channels,
        std=(0.25,) * shape.channels,
        digest="",
    )


def machine_flops(threads: int = 1, seconds: float = 0.3) -> float:
    """Measure this machine's FLOP/s in training a small stack of 3x3 convolutions."""
    with torch.random.fork_rng(devices=()):
        net = nn.Sequential(*[nn.Conv2d(64, 64, 3, padding=1, bias=False) for _ in range(3)])
        images = torch.randn(16, 64, 16, 16).to(memory_format=torch.channels_last)
    net.to(memory_format=torch.channels_last)
    step_seconds = _fastest(lambda: net(images).sum().backward(), threads, seconds)
    return 2 * 3 * 3 * 16 * 64 * 64 * 9 * 16 * 16 / step_seconds


def _fastest(action: Callable[[], object], threads: int, min_seconds: float = 0.0) -> float:
    """Return the shortest of some repetitions after a warm-up, since the machine may be shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        action()
        durations: list[float] = []
        while len(durations) < REPEATS or sum(durations) < min_seconds:
            began = time.perf_counter()
            action()
            durations.append(time.perf_counter() - began)
    finally:
        torch.set_num_threads(before)
    return min(durations)
