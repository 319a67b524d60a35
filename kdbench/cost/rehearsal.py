"""A cohort that trains on noise with the engine's own steps, to be timed.

Batches, teacher and learners run as in a training, on a GPU through the same graphs and streams.
"""

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from kdbench.cost.counting import DataShape
from kdbench.cost.speed import noise
from kdbench.data.batches import eval_batches
from kdbench.grid.run import Run
from kdbench.models import zoo
from kdbench.models.fold_batch_norm import folded
from kdbench.training.build import dry_run
from kdbench.training.context import TrainingContext
from kdbench.training.device import prepare
from kdbench.training.evaluation import BATCH
from kdbench.training.graphs import WARM
from kdbench.training.learner import Learner
from kdbench.training.steps import make_steps
from kdbench.training.teacher import LoadedTeacher

BLOCK = 20
"""Steps between two looks at the clock, for which a GPU has to be waited for."""
REPEATS = 2


class Rehearsal:
    """A cohort in training on noise.

    Attributes:
        learners: one per run.
        epoch: steps after which the noise repeats.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        shape: DataShape,
        device: torch.device,
        *,
        graphs: str = "auto",
        streams: int = 1,
    ) -> None:
        """Build teacher, learners and noise; compilation and a phase before training are left out.

        Args:
            runs: what to train; all have the same ``Run.shared``, and the teachers need no weights.
            shape: size of the data set.
            device: device to train on.
            graphs: as ``executor.graphs``.
            streams: as ``executor.streams``.

        Raises:
            DeviceError: the device does not have the runs' precision.
            Incompatible: a method cannot work on this pair.
        """
        run, self.device = runs[0], device
        prepare(device, run.training.precision)
        batch = run.training.batch_size
        self.epoch = max(1, min(BLOCK, shape.train // batch))
        self.data = noise(shape, self.epoch * batch, device)
        self.teacher = _untrained(run.teacher.arch, shape, device) if run.teacher else None
        features = None
        if self.teacher:
            features = dry_run(self.teacher.network, shape.channels, shape.size)
        # As many as the real data set has: the memory banks of some methods grow with them.
        labels = (torch.arange(shape.train) % shape.classes).to(device)
        self.learners = [
            Learner(
                _short(one),
                num_classes=shape.classes,
                in_channels=shape.channels,
                size=shape.size,
                train_labels=labels,
                teacher=features,
                teacher_head=self.teacher.head() if self.teacher else None,
                teacher_network=self.teacher.network if self.teacher else None,
                device=device,
            )
            for one in runs
        ]
        # No file is written.
        context = TrainingContext(Path(), device, graphs=graphs, streams=streams)
        self.steps = make_steps(_short(run), self.data, self.teacher, context)
        self._left = 0

    def step(self) -> None:
        """Take a step of each learner on a new batch; does not wait for the device."""
        if self._left == 0:
            self.steps.begin_epoch("train", 1, 0)
            self._left = self.epoch
        self._left -= 1
        self.steps.share(self.learners)
        for learner in self.learners:
            learner.step %= max(1, learner.steps - 1)  # the last step of an epoch does more
            self.steps.train(learner)

    def evaluate(self) -> None:
        """Evaluate the first learner on a batch of test images, and wait for the device."""
        images, labels = self.data.test_images[:BATCH], self.data.test_labels[:BATCH]
        self.learners[0].evaluate(eval_batches(images, labels, self.data, BATCH))

    def wait(self) -> None:
        """Wait for the device."""
        self.steps.join()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def rounds(self, n: int, seconds: float = 0.0) -> list[float]:
        """Return seconds per step in ``n`` rounds, each of at least ``seconds`` and 20 steps."""
        for _ in range(max(BLOCK, WARM + 1)):  # also records the graphs
            self.step()
        return [timed(self.step, self.wait, BLOCK, seconds) for _ in range(n)]

    def close(self) -> None:
        """Free the memory of networks and graphs."""
        self.wait()
        for learner in self.learners:
            self.steps.release(learner)
        del self.steps, self.learners, self.teacher, self.data
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def timed(
    action: Callable[[], object], wait: Callable[[], object], block: int, seconds: float = 0.0
) -> float:
    """Return the seconds per action, of as many blocks of actions as fill ``seconds``.

    Args:
        wait: waits for the device; called before the clock is read.
    """
    wait()
    began, n, passed = time.perf_counter(), 0, 0.0
    while n == 0 or passed < seconds:
        for _ in range(block):
            action()
        wait()
        n, passed = n + block, time.perf_counter() - began
    return passed / n


def run_seconds(
    run: Run, shape: DataShape, device: torch.device, *, graphs: str, seconds: float
) -> float:
    """Measure steps and evaluation of a run on noise; return the seconds of its whole training.

    Args:
        run: the run, as if it was trained alone.
        shape: size of its data set.
        device: device to train on.
        graphs: as ``executor.graphs``.
        seconds: least duration of a round of measurements.

    Raises:
        Exception: anything that a training may raise.
    """
    training = run.training
    with torch.random.fork_rng(devices=()):
        loop = Rehearsal([run], shape, device, graphs=graphs)
        try:
            step = min(loop.rounds(REPEATS, seconds))
            loop.evaluate()
            tested = min(BATCH, len(loop.data.test_images))
            test = min(timed(loop.evaluate, loop.wait, 1) for _ in range(REPEATS))
        finally:
            loop.close()
    steps = shape.train // training.batch_size * training.epochs
    first = run.pretrain[0] / training.epochs if run.pretrain else 0.0
    tests = training.epochs * shape.test / tested
    return step * steps * (1 + first) + test * tests


def _short(run: Run) -> Run:
    """Return the run without compilation, and without a phase before training."""
    training = run.training.model_copy(update={"compile": False})
    return replace(run, training=training, pretrain=None)


def _untrained(name: str, shape: DataShape, device: torch.device) -> LoadedTeacher:
    """Return a teacher with random weights, prepared as for a cohort."""
    network = zoo.create(name, num_classes=shape.classes, in_channels=shape.channels)
    with torch.no_grad():
        network.train()(torch.randn(8, shape.channels, shape.size, shape.size))
    network.eval().requires_grad_(False)
    fast = folded(network).to(device).to(memory_format=torch.channels_last)
    return LoadedTeacher(network, fast, None, "")
