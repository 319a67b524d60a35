"""The steps of a cohort: a batch, the teacher's forward, and a step of each learner.

``Steps`` runs them operation by operation. ``GraphSteps`` replays them as CUDA graphs: batch and
teacher of the next step while the learners, spread over lanes, still work on the present one. Both
give the same bits.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from kdbench.data.batches import BatchMaker, epoch_rows, train_batches
from kdbench.data.dataset import LoadedData
from kdbench.grid.run import Run
from kdbench.method import Features
from kdbench.training.clock import Clock
from kdbench.training.context import TrainingContext
from kdbench.training.cuda_recorder import CudaRecorder
from kdbench.training.graphs import WARM, Recorder, Replay
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
        self._current: tuple[Tensor, Tensor, Tensor, Features | None] | None = None
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
            images, labels, index = next(self._batches)
            needed = any(x.needs_teacher for x in learners)
            self._current = (images, labels, index, self._teacher(images) if needed else None)
        self._step += 1

    def share_again(self, learners: Sequence[Learner]) -> None:
        """Make the current batch and features again: a failed learner may have changed them."""
        self.begin_epoch(*self._epoch, self._step - 1)
        self.share(learners)

    def train(self, learner: Learner) -> None:
        """Take a learner's step on what was shared last."""
        assert self._current is not None
        learner.train_step(*self._current)

    def join(self) -> None:
        """Wait until all steps are done, if they do not end by themselves."""

    def release(self, learner: Learner) -> None:
        """Free what was kept for a learner that has ended."""

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
        if self._feed is None or self._feed.with_teacher != needed:
            self.recorder.join()
            self._feed = Feed(self.recorder, needed)
        told = self._feed.reason
        with self.recorder.on(self.own):
            with self.clock:  # without waiting for the learners
                self._row.copy_(self._rows[self._step])
                made = self._feed.make(partial(self._work, needed))
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
        replay.step(*self._current)
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

    def _work(self, needed: bool) -> tuple[Tensor, Tensor, Tensor, Features | None]:
        images, labels, index = self._make(self._row)
        return images, labels, index, self._teacher(images) if needed else None


Shared = tuple[Tensor, Tensor, Tensor, Features | None]


class Feed:
    """Batch and teacher as one graph, and the copy of their results that learners read.

    Args:
        recorder: its last lane is used.
        with_teacher: whether the results include the teacher's features.

    Attributes:
        reason: why the work cannot be recorded; "" if it can, as far as is known.
    """

    def __init__(self, recorder: Recorder, with_teacher: bool) -> None:
        self.recorder, self.with_teacher = recorder, with_teacher
        self.reason = ""
        self._warm = 0
        self._replay: Callable[[], None] | None = None
        self._made: Shared | None = None
        self._public: Shared | None = None

    def make(self, work: Callable[[], Shared]) -> Shared:
        """Make the next results, in memory of their own.

        Args:
            work: makes images, labels, positions and the teacher's features or None; the same in
                every call. It is not kept: it would keep the steps, and so all memory of a cohort,
                until Python next looks for cycles.
        """
        if self._warm < WARM or self.reason:
            self._warm += 1
            return work()
        if self._replay is None:
            try:
                self._replay, self._made = self.recorder.record(self.recorder.lanes, work, ())
            except Exception as error:
                self.recorder.join()  # raises if the device itself is lost
                self.reason = " ".join(str(error).split()) or type(error).__name__
                return work()
        self._replay()
        assert self._made is not None
        return self._made

    def publish(self, made: Shared) -> Shared:
        """Copy results to where learners read them: the same memory in every step."""
        if self._public is not None:
            torch._foreach_copy_(_tensors(self._public), _tensors(made))
            return self._public
        features = made[3].map(torch.clone) if made[3] is not None else None
        public = (made[0].clone(), made[1].clone(), made[2].clone(), features)
        self._public = public
        return public


def _tensors(shared: Shared) -> list[Tensor]:
    """Return every tensor once."""
    *batch, features = shared
    every = [*batch, *(x for _, x in (features.named() if features is not None else ()))]
    return list({id(x): x for x in every}.values())


def make_steps(
    run: Run, data: LoadedData, teacher: LoadedTeacher | None, context: TrainingContext
) -> Steps:
    """Return the steps of a cohort, as graphs where the context and its device allow it."""
    on_gpu = context.device.type == "cuda" and context.world.size == 1
    if context.graphs == "never" or not on_gpu:
        return Steps(run, data, teacher, context)
    recorder = CudaRecorder(context.device, context.streams)
    return GraphSteps(run, data, teacher, context, recorder)
