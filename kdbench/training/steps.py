"""The steps of a cohort: a batch, the teacher's forward, and a step of each learner.

``Steps`` runs them operation by operation. ``GraphSteps`` replays them as CUDA graphs: batch and
teacher of the next step while the learners, spread over lanes, still work on the present one. Both
give the same bits.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from kdbench.data.batches import BatchMaker, epoch_rows, train_batches
from kdbench.data.dataset import LoadedData
from kdbench.data.strong_views import StrongViews
from kdbench.grid.run import Run
from kdbench.method import Features
from kdbench.training.clock import Clock
from kdbench.training.context import TrainingContext
from kdbench.training.cuda_recorder import CudaRecorder
from kdbench.training.feed import Feed, Shared
from kdbench.training.graphs import Recorder, Replay
from kdbench.training.learner import Learner
from kdbench.training.teacher import LoadedTeacher


class Steps:
    """The steps of a cohort, operation by operation.

    Attributes:
        clock: time of batches and teacher forwards.
    """

    def __init__(
        self, run: Run, data: LoadedData, teacher: LoadedTeacher | None, context: TrainingContext
    ) -> None:
        """Prepare the steps of learners that share data, batches and teacher with ``run``."""
        self.run, self.data, self.teacher, self.context = run, data, teacher, context
        self.world, self.clock = context.world, Clock(context.device)
        self._batches: Iterator[tuple[Tensor, Tensor, Tensor]] = iter(())
        self._strong: StrongViews | None = None  # made only if a learner wants views
        self._current: Shared | None = None
        self._epoch, self._step = ("", 0), 0

    def begin_epoch(self, phase: str, epoch: int, first: int) -> None:
        """Prepare the batches of an epoch from step ``first`` on."""
        self._epoch, self._step = (phase, epoch), first
        self._batches = train_batches(
            self.data,
            batch_size=self.run.training.batch_size,
            seed=self.run.seed,
            epoch=epoch,
            purpose=phase,
            crop_pad=self.run.training.crop_pad,
            flip=self.run.training.flip,
            start_step=first,
        )

    def share(self, learners: Sequence[Learner]) -> None:
        """Make the next batch and, if a learner needs them, the teacher's features of it."""
        with self.clock:
            needed = any(x.needs_teacher for x in learners)
            extra = max((x.views for x in learners), default=1) - 1
            self._current = self._made(next(self._batches), needed, extra)
        self._step += 1

    def share_again(self, learners: Sequence[Learner]) -> None:
        """Make the current batch and features again: a failed learner may have changed them."""
        self.begin_epoch(*self._epoch, self._step - 1)
        self.share(learners)

    def train(self, learner: Learner) -> None:
        """Take a learner's step on what was shared last."""
        assert self._current is not None
        learner.train_step(*self._current.given(learner.views))

    def join(self) -> None:
        """Wait until all steps are done, if they do not end by themselves."""

    def release(self, learner: Learner) -> None:
        """Free what was kept for a learner that has ended."""

    def _made(self, batch: tuple[Tensor, Tensor, Tensor], needed: bool, extra: int) -> Shared:
        """Add to a batch its strong views, and the teacher's features of it and of them."""
        views = tuple(self._view(number) for number in range(extra))
        features = self._teacher(batch[0]) if needed else None
        if features is not None:
            of_views = (self._teacher(view) for view in views)
            features = replace(features, views=tuple(t for t in of_views if t is not None))
        return Shared(*batch, features, views)

    def _view(self, number: int) -> Tensor:
        """Return a strong view of the present batch."""
        training = self.run.training
        if self._strong is None:
            self._strong = StrongViews(
                self.data,
                batch_size=training.batch_size,
                seed=self.run.seed,
                crop_pad=training.crop_pad,
                flip=training.flip,
            )
        return self._strong(*self._epoch, self._step, number)

    def _teacher(self, images: Tensor) -> Features | None:
        """Return the teacher's features of a global batch; None without a teacher."""
        if self.teacher is None:
            return None
        bf16 = self.run.training.precision == "bf16"
        with torch.autocast(self.context.device.type, torch.bfloat16, enabled=bf16):
            return self.world.gather(self.teacher(images[self.world.rows(len(images))]))


class GraphSteps(Steps):
    """The steps of a cohort as graphs, in lanes that work at the same time.

    Batch and teacher are made in a lane of their own, in memory that only this lane uses. Between
    two steps, when no learner works, they are copied to where all learners read them.

    Args:
        recorder: of the context's device.
    """

    def __init__(
        self,
        run: Run,
        data: LoadedData,
        teacher: LoadedTeacher | None,
        context: TrainingContext,
        recorder: Recorder,
    ) -> None:
        super().__init__(run, data, teacher, context)
        self.recorder, self.own = recorder, recorder.lanes
        training = run.training
        self._make = BatchMaker(data, training.crop_pad, training.flip)
        self._rows = self._row = torch.empty(0)
        self._feed: Feed | None = None
        self._replays: dict[str, Replay] = {}

    def begin_epoch(self, phase: str, epoch: int, first: int) -> None:
        """Prepare the batches of an epoch from step ``first`` on."""
        run = self.run
        self.recorder.join()  # the last epoch's rows may still be read
        self._rows = epoch_rows(
            self.data, run.training.batch_size, run.seed, epoch, phase, run.training.crop_pad
        )
        self._epoch, self._step = (phase, epoch), first
        if self._row.numel() == 0:
            self._row = self._rows[0].clone()
        self.recorder.join()  # they are copied outside the lanes

    def share(self, learners: Sequence[Learner]) -> None:
        """Make the next batch and, if a learner needs them, the teacher's features of it."""
        needed = self.teacher is not None and any(x.needs_teacher for x in learners)
        extra = max((x.views for x in learners), default=1) - 1
        if self._feed is None or self._feed.kind != (needed, extra):
            self.recorder.join()
            self._feed = Feed(self.recorder, needed, extra)
            if extra and self._strong is None:
                self._say("batches and teacher", self._feed.reason)
        told = self._feed.reason
        with self.recorder.on(self.own):
            with self.clock:  # without waiting for the learners
                self._row.copy_(self._rows[self._step])
                made = self._feed.make(partial(self._work, needed, extra))
            for lane in range(self.recorder.lanes):
                self.recorder.wait(self.own, lane)
            self._current = self._feed.publish(made)
        for lane in range(self.recorder.lanes):
            self.recorder.wait(lane, self.own)
        self._step += 1
        if self._feed.reason and not told:
            self._say("batches and teacher", self._feed.reason)

    def train(self, learner: Learner) -> None:
        """Take a learner's step on what was shared last."""
        assert self._current is not None
        replay = self._replays.get(learner.run.id)
        if replay is None:
            lane = len(self._replays) % self.recorder.lanes
            replay = self._replays[learner.run.id] = Replay(learner, self.recorder, lane)
            told = ""
        else:
            told = replay.reason
        replay.step(*self._current.given(learner.views))
        if replay.reason != told:
            self._say(f"{learner.run.title}, {learner.run.method}", replay.reason)

    def join(self) -> None:
        """Wait until all steps are done."""
        self.recorder.join()

    def release(self, learner: Learner) -> None:
        """Free the graph of a learner that has ended."""
        self.recorder.join()
        self._replays.pop(learner.run.id, None)

    def _say(self, who: str, reason: str) -> None:
        if self.context.graphs == "always":
            raise RuntimeError(f"executor.graphs: always, but {reason}; accepted here: auto, never")
        self.context.report((), f"{who}: not a CUDA graph, so slower: {reason}")

    def _work(self, needed: bool, extra: int) -> Shared:
        return self._made(self._make(self._row), needed, extra)


def make_steps(
    run: Run, data: LoadedData, teacher: LoadedTeacher | None, context: TrainingContext
) -> Steps:
    """Return the steps of a cohort, as graphs where the context and its device allow it."""
    on_gpu = context.device.type == "cuda" and context.world.size == 1
    if context.graphs == "never" or not on_gpu:
        return Steps(run, data, teacher, context)
    recorder = CudaRecorder(context.device, context.streams)
    return GraphSteps(run, data, teacher, context, recorder)
