"""A cohort: learners that share teacher, data and seed, and so one teacher forward per batch.

This is the training loop. Each learner ends in a record; what ends one learner ends no other.
"""

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from kdbench.data.batches import eval_batches, train_batches
from kdbench.data.dataset import LoadedData
from kdbench.grid.run import Run
from kdbench.method import Features, Incompatible
from kdbench.runs import records
from kdbench.runs.records import Record
from kdbench.training import checkpoint, evaluation
from kdbench.training.bookkeeping import Bookkeeper
from kdbench.training.build import dry_run
from kdbench.training.clock import Clock
from kdbench.training.context import TrainingContext
from kdbench.training.learner import Learner
from kdbench.training.memory import exhausted
from kdbench.training.teacher import LoadedTeacher


class Stopped(Exception):
    """The trainer was asked to stop; everything is in checkpoints."""


@dataclass
class Cohort:
    """Learners in training.

    Attributes:
        runs: what to train; ``Run.shared`` of all of them is the same.
        teacher: None where no run has one.
    """

    runs: Sequence[Run]
    teacher: LoadedTeacher | None
    data: LoadedData
    context: TrainingContext
    learners: list[Learner] = field(default_factory=list)

    def train(self) -> None:
        """Train to the end; each run leaves a record.

        Raises:
            Stopped: the place asked to stop; every learner's state lies in a checkpoint.
            OSError: the disk is full or cannot be written; what was written before is whole.
            RankLost: another rank has left; the last checkpoints hold.
        """
        self.world = self.context.world
        if len({run.shared for run in self.runs}) != 1:
            raise ValueError("the runs of a cohort share teacher, data, batches and seed")
        self.bookkeeper = Bookkeeper(self.context, self.runs)
        self.clock = Clock(self.context.device)
        self.clock_shared = 0.0
        seen = None
        if self.teacher:
            seen = dry_run(self.teacher.network, self.data.channels, self.data.size)
        for run in self.runs:
            self._start(run, seen)
        # Before anything can go wrong, say who has these runs in hand.
        self.bookkeeper.beat(self.learners, 0, 0)
        for phase in ("pretrain", "train"):
            last = max((x.epochs() for x in self._active() if x.phase == phase), default=0)
            for epoch in range(1, last + 1):
                # One that was resumed further on joins when the others have come that far.
                group = [x for x in self._active() if (x.phase, x.epoch) == (phase, epoch)]
                if group:
                    self._epoch(phase, epoch, group)

    def _active(self) -> list[Learner]:
        return [x for x in self.learners if x.status == "running"]

    def _start(self, run: Run, seen: Features | None) -> None:
        """Build a learner, or resume it; what cannot be built ends in a record."""
        self.world.first_rank_runs(partial(records.write_run, self.context.runs, run))
        folder = records.folder(self.context.runs, run.id)
        try:
            build = partial(
                Learner,
                run,
                num_classes=self.data.num_classes,
                in_channels=self.data.channels,
                size=self.data.size,
                train_labels=self.data.train_labels,
                teacher=seen,
                teacher_head=self.teacher.head() if self.teacher else None,
                device=self.context.device,
                world=self.world,
            )
            learner = self.world.run_or_fail_together(build)
            state = self.world.first_rank_runs(partial(checkpoint.load, folder))
            if state is not None and "optimizer" in state:
                learner.load_state(state)
                where = f"{learner.phase} epoch {learner.epoch}, step {learner.step}"
                learner.attempts.append(f"resumed at {where}")
        except Incompatible as reason:
            self.bookkeeper.write(run, Record(run.id, "skipped", reason=_line(reason)))
            return
        except (Exception, SystemExit) as error:
            trace = traceback.format_exc()
            self.bookkeeper.write(
                run, Record(run.id, "failed", reason=_line(error), traceback=trace)
            )
            return
        self.learners.append(learner)
        if learner.phase == "end":  # killed between the last epoch and the record
            self._finish(learner)

    # -- one epoch --------------------------------------------------------------------------

    def _epoch(self, phase: str, epoch: int, group: list[Learner]) -> None:
        self.bookkeeper.epoch_began = time.monotonic()
        first = min(x.step for x in group)
        last = group[0].steps
        training = group[0].run.training
        batches = train_batches(
            self.data,
            batch_size=training.batch_size,
            seed=group[0].run.seed,
            epoch=epoch,
            purpose=phase,
            crop_pad=training.crop_pad,
            flip=training.flip,
            start_step=first,
        )
        images_seen = 0
        for step in range(first, last):
            now = [x for x in group if x.status == "running" and x.step == step]
            if not any(x.status == "running" for x in group):
                break
            with self.clock:
                images, labels, index = next(batches)
                t = self._ask_teacher(images, now)
            for learner in now:
                self._guarded(learner, partial(learner.train_step, images, labels, index, t))
            images_seen += len(now) * len(labels)
            self._rest(group, step + 1, images_seen)
        for learner in [x for x in group if x.status == "running"]:
            self._end_epoch(learner, phase)
        self._share_clock(group)
        self.bookkeeper.epoch_seconds = time.monotonic() - self.bookkeeper.epoch_began
        self.bookkeeper.beat(group, last, images_seen)
        for learner in group:
            if learner.phase == "end" or learner.status != "running":
                self._finish(learner)
        if self.world.any_rank(self.context.stop())[0]:
            self.bookkeeper.save(self._active())
            raise Stopped

    def _ask_teacher(self, images: Tensor, learners: list[Learner]) -> Features | None:
        if self.teacher is None or not any(x.needs_teacher for x in learners):
            return None
        half = learners[0].run.training.precision == "bf16"
        with torch.autocast(self.context.device.type, torch.bfloat16, enabled=half):
            return self.world.gather(self.teacher(images[self.world.rows(len(images))]))

    def _end_epoch(self, learner: Learner, phase: str) -> None:
        if learner.diverged():
            return
        if phase == "pretrain":
            learner.next_epoch()
            return

        def evaluate() -> None:
            data = self.data
            test = learner.evaluate(self._batches(data.test_images, data.test_labels))
            val = None
            if data.val_images is not None and data.val_labels is not None:
                val = learner.evaluate(self._batches(data.val_images, data.val_labels))
            learner.end_epoch(test, val)

        self._guarded(learner, evaluate)

    def _batches(self, images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        rank, ranks = self.world.rank, self.world.size
        return eval_batches(images, labels, self.data, evaluation.BATCH, rank=rank, ranks=ranks)

    def _guarded(self, learner: Learner, action: Callable[[], None]) -> None:
        """A learner that raises ends alone."""
        try:
            self.world.run_or_fail_together(action)
        except (Exception, SystemExit) as error:
            learner.status, learner.reason = "failed", _line(error)
            learner.trace = traceback.format_exc()

    def _rest(self, group: list[Learner], step: int, images_seen: int) -> None:
        """Between two steps: heartbeat, checkpoint when due, stop when asked."""
        if self.bookkeeper.beat_due():
            self.bookkeeper.beat(group, step, images_seen)
        due, stop = self.world.any_rank(self.bookkeeper.save_due(), self.context.stop())
        if due or stop:
            self._share_clock(group)
            self.bookkeeper.save(self._active())
        if stop:
            raise Stopped

    def _share_clock(self, group: list[Learner]) -> None:
        """Teacher and batches count in full for every learner: alone it would have paid them."""
        spent = self.clock.settle() - self.clock_shared
        self.clock_shared += spent
        for learner in group:
            learner.teacher_seconds += spent

    def _finish(self, learner: Learner) -> None:
        self.bookkeeper.finish(learner, self.data, self.teacher)
        self.learners.remove(learner)


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if exhausted(error):
        text += " (out of memory: a smaller executor.cohort or batch_size needs less)"
    return text if isinstance(error, Incompatible) else f"{type(error).__name__}: {text}"
