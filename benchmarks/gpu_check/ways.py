"""Ways of running a cohort's steps: operation by operation, or as graphs on some streams."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_check import subjects
from benchmarks.gpu_check.check import Check
from benchmarks.gpu_check.timing import Marks
from kdbench.data.dataset import LoadedData
from kdbench.grid.run import Run
from kdbench.method import Incompatible
from kdbench.training import checkpoint, cohort, device, steps
from kdbench.training.context import TrainingContext
from kdbench.training.cuda_recorder import CudaRecorder
from kdbench.training.graphs import Recorder
from kdbench.training.learner import Learner
from kdbench.training.teacher import LoadedTeacher


@dataclass(frozen=True)
class Way:
    """A way of running steps.

    Attributes:
        precision: "fp32", "tf32" or "bf16".
        streams: number of streams for learners; 0: no graphs.
    """

    precision: str
    streams: int = 0

    @property
    def graphs(self) -> str:
        """The value of ``executor.graphs``; "auto" goes on eagerly where a graph is impossible."""
        return "auto" if self.streams else "never"

    @property
    def values(self) -> dict[str, Any]:
        """Keys of a line."""
        way = "graph" if self.streams else "eager"
        return {"way": way, "streams": max(1, self.streams), "precision": self.precision}

    def __str__(self) -> str:
        """Return a short name: ``graph+4 bf16``."""
        graph = f"graph+{self.streams}" if self.streams > 1 else "graph"
        return f"{graph if self.streams else 'eager'} {self.precision}"


def recorder(where: torch.device, lanes: int) -> Recorder | None:
    """Return a recorder of graphs; for a CPU that of the tests, or None without it."""
    if where.type == "cuda":
        return CudaRecorder(where, lanes)
    try:
        from tape_recorder import TapeRecorder
    except ImportError:
        return None
    return TapeRecorder(lanes)


@contextmanager
def graphs_on_a_cpu(where: torch.device) -> Iterator[None]:
    """Let ``Cohort.train`` use the tests' graphs on a CPU; on a GPU nothing changes."""
    original = cohort.make_steps

    def make(
        run: Run, data: LoadedData, teacher: LoadedTeacher | None, context: TrainingContext
    ) -> steps.Steps:
        made = None if context.graphs == "never" else recorder(where, context.streams)
        if made is None:
            return original(run, data, teacher, context)
        return steps.GraphSteps(run, data, teacher, context, made)

    if where.type != "cuda":
        cohort.make_steps = make
    try:
        yield
    finally:
        cohort.make_steps = original


class Column:
    """The learners of a cohort and their steps, without files, evaluation or pretraining.

    Attributes:
        way: how steps are run.
        learners: by method.
        refused: methods that cannot work on this pair, with the reason.
        steps: the steps.
    """

    def __init__(
        self,
        check: Check,
        methods: tuple[str, ...],
        way: Way,
        pair: tuple[str, str],
        data: LoadedData,
        loaded: LoadedTeacher | None,
        batch: int,
    ) -> None:
        """Build the learners; sets torch's settings for the way's precision.

        Raises:
            DeviceError: the device cannot compute in this precision.
        """
        device.prepare(check.device, way.precision)
        self.way, self.check = way, check
        self.learners: dict[str, Learner] = {}
        self.refused: dict[str, str] = {}
        for name in methods:
            run = subjects.run(name, pair, precision=way.precision, batch=batch)
            try:
                self.learners[name] = subjects.learner(run, data, loaded, check.device)
            except Incompatible as reason:
                self.refused[name] = str(reason)
        first = next(iter(self.learners.values())).run
        context = TrainingContext(
            Path(tempfile.gettempdir()), check.device, graphs=way.graphs, streams=way.streams or 1
        )
        made = recorder(check.device, way.streams) if way.streams else None
        if made is None:
            self.steps = steps.Steps(first, data, loaded, context)
        else:
            self.steps = steps.GraphSteps(first, data, loaded, context, made)
        self.epoch = 0

    def step(self) -> None:
        """Take a step of every learner, in the next epoch if the last one has ended."""
        every = list(self.learners.values())
        if self.epoch == 0 or every[0].step == every[0].steps:
            self._next_epoch(every)
        self.steps.share(every)
        for learner in every:
            self.steps.train(learner)

    def run(self, steps: int) -> None:
        """Take steps, and wait for the device."""
        for _ in range(steps):
            self.step()
        self.join()

    def mark(self, marks: Marks) -> None:
        """Mark the present end of the work on batches and teacher, which begins each step."""
        own = self.steps
        with own.recorder.on(own.own) if isinstance(own, steps.GraphSteps) else nullcontext():
            marks.mark()

    def join(self) -> None:
        """Wait for the device."""
        self.steps.join()
        self.check.synchronize()

    def _next_epoch(self, every: list[Learner]) -> None:
        if self.epoch:
            self.steps.join()
            for learner in every:
                learner.next_epoch()
        self.epoch += 1
        self.steps.begin_epoch("train", self.epoch, 0)

    def digests(self) -> dict[str, str]:
        """Return the first digits of the sha256 of each learner's weights and sums."""
        self.join()
        return {name: digest(learner) for name, learner in self.learners.items()} | self.refused

    def not_graphs(self) -> dict[str, str]:
        """Return the methods whose steps are not graphs although the way has graphs, and why."""
        if not self.way.streams:
            return {}
        return {name: x.graphed for name, x in self.learners.items() if x.graphed != "yes"}


def digest(learner: Learner) -> str:
    """Return the first digits of the sha256 of weights, buffers and sums."""
    tensors = dict(learner.student.state_dict(prefix="student."))
    tensors |= learner.methods.state_dict(prefix="methods.")
    tensors |= {f"sums.{i}": value for i, value in enumerate(learner.sums.state())}
    return checkpoint.digest(tensors)[:12]
