"""A learner's step as a CUDA graph: recorded once, then replayed by one call, with the same bits.

A graph repeats the very kernels of an ordinary step on the same addresses. So whatever a step takes
from Python must be the same in every step: ``Replay`` finds what is not, and then continues without
a graph. docs/gpu.md lists the rules.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from kdbench.method import Batch, Features, Method
from kdbench.training.learner import Learner
from kdbench.training.python_state import changed, python_state, restore
from kdbench.training.watched_batch import NotCapturable, Watch, WatchedBatch

Result = TypeVar("Result")

WARM = 2
"""Ordinary steps before a recording. They make handles, workspaces, momentum and method state."""


class Recorder(Protocol):
    """Records work on a device, and knows the device's lanes: streams of work in order.

    Attributes:
        lanes: number of lanes for learners; lane ``lanes`` is that of batches and teacher.
    """

    lanes: int

    def on(self, lane: int) -> AbstractContextManager[Any]:
        """Return a context in which operations are sent to a lane."""

    def record(
        self, lane: int, work: Callable[[], Result], generators: Sequence[torch.Generator]
    ) -> tuple[Callable[[], None], Result]:
        """Record ``work`` without doing it; return a function that does it, and its result.

        The result's tensors are valid after each call of the function. ``generators`` are those
        that the work draws from, besides torch's global ones.
        """

    def wait(self, lane: int, other: int) -> None:
        """Make later work in ``lane`` wait for the present work in ``other``."""

    def join(self) -> None:
        """Wait for all lanes."""


class Replay:
    """A learner whose steps are recorded and replayed if possible.

    Attributes:
        learner: the learner.
        lane: where its steps run.
        reason: why its steps cannot be recorded; "" if they can, as far as is known.
    """

    def __init__(self, learner: Learner, recorder: Recorder, lane: int) -> None:
        self.learner, self.recorder, self.lane = learner, recorder, lane
        self.reason = ""
        if not all(method.capturable for method in learner.terms):
            terms = zip(learner.run.terms, learner.terms, strict=True)
            names = [term.method for term, method in terms if not method.capturable]
            self.reason = f"steps of {' and '.join(names)} cannot be recorded"
        self._watch = Watch()
        self._graph: Callable[[], None] | None = None
        self._features: Features | None = None
        self._key: object = None
        self._images: Tensor | None = None
        self._traces = any(type(m).trace is not Method.trace for m in learner.terms)
        learner.graphed = self.reason or "yes"

    def step(
        self, images: Tensor, labels: Tensor, index: Tensor, t: Features | None, *views: Tensor
    ) -> None:
        """Take a step on a batch and the teacher's features, which must stay in the same memory."""
        x = self.learner
        with self.recorder.on(self.lane):
            x.before_step()
            batch = x.batch(images, labels, index, *views)
            if self._key != self._now() or self._images is not images:
                self._forget()
                self._images = images
            if self._graph is None and x.steps_here >= WARM and not self.reason:
                self._record(batch, t)
            with x.clock:
                if self._graph is not None:
                    self._watch.seed(batch.step)
                    self._graph()
                    features = self._features
                else:
                    features = self._compute(batch, t)
            x.after_step(features, t)

    def _now(self) -> object:
        """Return what the present recording depends on besides the addresses of tensors."""
        epoch = self.learner.epoch if "epoch" in self._watch.read else None
        return self.learner.phase, epoch, id(self.learner.optimizer)

    def _forget(self) -> None:
        if self._graph is not None:
            self.recorder.join()  # it may still run
        self._graph = self._features = None
        self._key = self._now()

    def _compute(self, batch: Batch, t: Features | None) -> Features:
        """Run a step operation by operation, and see whether the next ones can be recorded."""
        # Copies, because a method may keep its inputs, and their memory is soon written again.
        images, labels, index = (x.clone() for x in (batch.images, batch.labels, batch.index))
        views = tuple(x.clone() for x in batch.views)
        batch = replace(batch, images=images, labels=labels, index=index, views=views)
        t = t.map(torch.clone) if t is not None else None
        if self.reason:
            return self.learner.compute(batch, t)
        before, drawn = python_state(self._modules()), self._random_state()
        self._watch.begin()
        features = self.learner.compute(WatchedBatch(batch, self._watch), t)
        self._refuse(self._hindrance(drawn))
        if self.learner.steps_here > 0:  # the first step may set things up
            self._refuse(changed(before, python_state(self._modules())))
        self._key = self._now()
        return features

    def _record(self, batch: Batch, t: Features | None) -> None:
        """Record a step without taking it."""
        x, before, drawn = self.learner, python_state(self._modules()), self._random_state()
        self._watch.begin()
        self._watch.seed(batch.step)
        self._watch.recording = True
        try:
            work = lambda: x.compute(WatchedBatch(batch, self._watch), t)  # noqa: E731
            graph, features = self.recorder.record(self.lane, work, self._watch.generators)
            hindrance = changed(before, python_state(self._modules()))
            if hindrance or self._hindrance(drawn):
                raise NotCapturable(hindrance or self._hindrance(drawn))
        except Exception as error:
            self.recorder.join()  # raises if the device itself is lost
            x.optimizer.zero_grad(set_to_none=True)
            restore(before)
            self._refuse(" ".join(str(error).split()) or type(error).__name__)
            x.before_step()  # seeds again
        else:
            self._graph, self._key = graph, self._now()
            self._features = features if self._traces else None
        finally:
            self._watch.recording = False

    def _hindrance(self, drawn: object) -> str:
        """Return what a method took that the next steps cannot repeat; "" if nothing.

        Args:
            drawn: ``_random_state`` before the step.
        """
        names = sorted(self._watch.read & {"progress", "step"})
        if names:
            changes = "changes" if len(names) == 1 else "change"
            read = " and batch.".join(names)
            return f"a method reads batch.{read}, which {changes} in every step"
        if drawn != self._random_state():
            # Graphs in several lanes would share the global generator's seed in memory.
            return "a method draws from torch's global generator; batch.generator can be recorded"
        return ""

    def _random_state(self) -> object:
        """Return the state of torch's global generators of CPU and device, for comparisons."""
        state = torch.default_generator.get_state().numpy().tobytes()
        device = self.learner.device
        if device.type == "cuda":
            return state, torch.cuda.default_generators[device.index or 0].get_offset()
        return state

    def _refuse(self, reason: str) -> None:
        if reason:
            self.reason = self.learner.graphed = reason

    def _modules(self) -> list[nn.Module]:
        return [*self.learner.methods.modules(), *self.learner.student.modules()]
