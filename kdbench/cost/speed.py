"""How fast this machine trains: networks measured as the engine runs them, for a moment.

A small network reaches a fraction of what a processor can do, a large one most of it; so operations
alone do not tell the time.
"""

import math
import time
from collections.abc import Callable
from functools import cached_property, partial

import torch
from torch import nn

from kdbench.cost.counting import Shape, network_cost
from kdbench.cost.estimate import RunCost, shape
from kdbench.data.batches import train_batches
from kdbench.data.dataset import LoadedData
from kdbench.grid.run import Run
from kdbench.models import zoo
from kdbench.models.fold_batch_norm import folded
from kdbench.training.evaluation import BATCH, evaluate
from kdbench.training.learner import Learner
from kdbench.training.teacher import LoadedTeacher

MOMENT = 0.1
"""Seconds that one measured step may take; a network that needs longer is given a smaller batch."""
REPEATS = 2


class Speed:
    """Tells how long runs take here.

    Attributes:
        threads: of a worker. seconds: left to spend on measuring; after that a network is taken to
            be as fast as the one measured that is most like it in size.
    """

    def __init__(self, threads: int = 1, seconds: float = 1.0) -> None:
        self.threads, self.seconds = threads, seconds
        self._known: dict[str, dict[tuple[object, ...], tuple[float, float]]] = {}

    def seconds_of(self, run: Run, cost: RunCost) -> float:
        """What a run takes that is trained alone."""
        of, training = shape(run.dataset), run.training
        operations, b = cost.operations, training.batch_size
        if not cost.flops:
            return 0.0
        step = self._rate("step", run.student, run, of, b)
        test = self._rate("test", run.student, run, of, min(BATCH, of.test))
        ask = self._rate("ask", run.teacher.arch, run, of, b) if run.teacher else step
        seconds = operations.student / step + operations.evaluation / test
        # What methods add works on maps like the teacher's.
        seconds += (operations.teacher + operations.methods) / ask
        return seconds

    @cached_property
    def flops(self) -> float:
        """FLOP/s of large convolutions, which little else reaches."""
        return machine_flops(self.threads)

    def _rate(self, what: str, name: str, run: Run, of: Shape, batch: int) -> float:
        """FLOP/s of a network in a training step, a test or as a teacher."""
        known = self._known.setdefault(what, {})
        key = (name, of, batch, run.training.crop_pad, run.training.flip)
        size = math.log(max(1, network_cost(name, of).macs))
        if key not in known:
            if self.seconds <= 0 and known:
                return min(known.values(), key=lambda other: abs(other[0] - size))[1]
            began = time.process_time()
            known[key] = (size, self._measured(what, name, run, of, batch))
            self.seconds -= (time.process_time() - began) / self.threads
        return known[key][1]

    def _measured(self, what: str, name: str, run: Run, of: Shape, batch: int) -> float:
        each = 2 * network_cost(name, of).macs * (3 if what == "step" else 1)
        b = max(2, min(batch, math.floor(MOMENT * self.flops / max(1, each))))
        measure = {"step": _step, "test": _test, "ask": _ask}[what]
        with torch.random.fork_rng(devices=()):
            return b * each / _seconds(measure(name, run, of, b), self.threads, MOMENT / 3)


def _step(name: str, run: Run, of: Shape, b: int) -> Callable[[], object]:
    """A training step without teacher and methods, its batch included."""
    learner = _learner(name, run, of, b)
    data = _noise(of, 2 * b)
    training = run.training

    def step() -> None:
        images, labels, index = next(
            train_batches(
                data, batch_size=b, seed=0, epoch=1, crop_pad=training.crop_pad, flip=training.flip
            )
        )
        learner.train_step(images, labels, index, None)

    return step


def _test(name: str, run: Run, of: Shape, b: int) -> Callable[[], object]:
    network = zoo.create(name, num_classes=of.classes, in_channels=of.channels).eval()
    network.to(memory_format=torch.channels_last)
    batches = [(_images(of, b), torch.zeros(b, dtype=torch.int64))]
    return partial(evaluate, lambda x: network(x).logits, batches, torch.device("cpu"))


def _ask(name: str, run: Run, of: Shape, b: int) -> Callable[[], object]:
    network = zoo.create(name, num_classes=of.classes, in_channels=of.channels)
    fast = folded(network).to(memory_format=torch.channels_last)
    return partial(LoadedTeacher(network, fast, None, ""), _images(of, b))


def _images(of: Shape, b: int) -> torch.Tensor:
    images = torch.randn(b, of.channels, of.size, of.size)
    return images.to(memory_format=torch.channels_last)


def _learner(name: str, run: Run, of: Shape, b: int) -> Learner:
    """A student that learns alone; epochs long enough never to end here."""
    alone = Run(
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
        alone,
        num_classes=of.classes,
        in_channels=of.channels,
        size=of.size,
        train_labels=torch.zeros(100 * b, dtype=torch.int64),
        teacher=None,
        teacher_head=None,
        device=torch.device("cpu"),
    )


def _noise(of: Shape, n: int) -> LoadedData:
    images = torch.randint(256, (n, of.size, of.size, of.channels), dtype=torch.uint8)
    labels = torch.arange(n) % of.classes
    return LoadedData(
        name="noise",
        title="noise",
        classes=tuple(map(str, range(of.classes))),
        train_images=images,
        train_labels=labels,
        test_images=images,
        test_labels=labels,
        val_images=None,
        val_labels=None,
        mean=(0.5,) * of.channels,
        std=(0.25,) * of.channels,
        digest="",
    )


def machine_flops(threads: int = 1, seconds: float = 0.3) -> float:
    """FLOP/s of this machine in training a small stack of 3x3 convolutions, measured now."""
    with torch.random.fork_rng(devices=()):
        net = nn.Sequential(*[nn.Conv2d(64, 64, 3, padding=1, bias=False) for _ in range(3)])
        images = torch.randn(16, 64, 16, 16).to(memory_format=torch.channels_last)
    net.to(memory_format=torch.channels_last)
    spent = _seconds(lambda: net(images).sum().backward(), threads, seconds)
    return 2 * 3 * 3 * 16 * 64 * 64 * 9 * 16 * 16 / spent


def _seconds(action: Callable[[], object], threads: int, least: float = 0.0) -> float:
    """The fastest of some repetitions, after one that warms up: others use this machine, too."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        action()
        taken: list[float] = []
        while len(taken) < REPEATS or sum(taken) < least:
            began = time.perf_counter()
            action()
            taken.append(time.perf_counter() - began)
    finally:
        torch.set_num_threads(before)
    return min(taken)
