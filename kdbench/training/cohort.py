"""The training loop of a cohort: learners that share data, batches, seed and a teacher's forwards.

Each learner ends with a record. A learner that fails or diverges does not affect the others.
"""

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from kdbench.data.batches import eval_batches
from kdbench.data.dataset import LoadedData
from kdbench.errors import readable
from kdbench.grid.run import Run
from kdbench.method import ContractBroken, Features, Incompatible
from kdbench.runs.data_digests import DataChanged, MadeOf, check_loaded
from kdbench.runs.records import Record
from kdbench.training import evaluation, learner_state
from kdbench.training.bookkeeping import Bookkeeper
from kdbench.training.build import dry_run
from kdbench.training.context import TrainingContext
from kdbench.training.device import DeviceLost, lost, prepare
from kdbench.training.learner import Learner
from kdbench.training.memory import is_out_of_memory, release_gpu_memory
from kdbench.training.preparation import prepare_methods
from kdbench.training.steps import make_steps
from kdbench.training.teacher import LoadedTeacher


class Stopped(Exception):
    """Training was asked to stop; every learner has a checkpoint."""


@dataclass
class Cohort:
    """Learners in training.

    Attributes:
        runs: what to train; all have the same ``Run.shared``.
        teacher: the runs' teacher; None if they have none.
        data: the runs' data set.
        context: device, folder and callbacks.
        learners: those that have not ended.
    """

    runs: Sequence[Run]
    teacher: LoadedTeacher | None
    data: LoadedData
    context: TrainingContext
    learners: list[Learner] = field(default_factory=list)

    def train(self) -> None:
        """Train all runs to their end; each then has a record.

        Raises:
            Stopped: the context asked to stop; every learner has a checkpoint.
            DataChanged: a run was begun on other images.
            OSError: the disk is full or cannot be written; files written before are complete.
            RankLost: another rank is gone; the last checkpoints are valid.
            DeviceLost: the GPU refuses all further work; likewise.
        """
        prepare(self.context.device, self.runs[0].training.precision)
        self._start_learners()
        for phase in ("pretrain", "train"):
            last = max((x.epochs() for x in self._running() if x.phase == phase), default=0)
            for epoch in range(1, last + 1):
                # A learner resumed at a later epoch joins when the others reach that epoch.
                group = [x for x in self._running() if (x.phase, x.epoch) == (phase, epoch)]
                if group:
                    self._train_epoch(phase, epoch, group)

    def _train_epoch(self, phase: str, epoch: int, group: list[Learner]) -> None:
        """Train the learners in ``group`` for one epoch, or for the rest of one, and evaluate."""
        first = min(x.step for x in group)
        self.bookkeeper.begin_epoch(first)
        self.steps.begin_epoch(phase, epoch, first)
        for step in range(first, group[0].steps):
            if not any(x.status == "running" for x in group):
                break
            # A learner resumed at a later step waits until the others reach that step.
            learners = [x for x in group if x.status == "running" and x.step == step]

            # Batch and teacher forward, once for all learners.
            self.steps.share(learners)

            # Forward, backward and optimiser step of each learner.
            for learner in learners:
                self._run_or_fail(learner, partial(self.steps.train, learner))
                if learner.status != "running":
                    self.steps.share_again(learners)

            # Heartbeat and checkpoints if due, or stop.
            self.bookkeeper.step_done(learners, group[0].run.training.batch_size)
            self._between_steps(group)
        self.steps.join()

        # Evaluation, and the row of the epoch in each learner's history.
        for learner in [x for x in group if x.status == "running"]:
            self._end_epoch(learner, phase)
        self._assign_shared_seconds(group)
        self.bookkeeper.end_epoch(group)

        # Records of the learners that have ended.
        for learner in group:
            if learner.phase == "end" or learner.status != "running":
                self._finish(learner)
        if self.world.any_rank(self.context.stop())[0]:
            self.bookkeeper.save(self._running())
            raise Stopped

    # -- before the first epoch -------------------------------------------------------------

    def _start_learners(self) -> None:
        """Build or resume a learner of every run, and write the first heartbeats."""
        self.world = self.context.world
        if len({run.shared for run in self.runs}) != 1:
            raise ValueError("the runs of a cohort share teacher, data, batches and seed")
        self.bookkeeper = Bookkeeper(self.context, self.runs, self.data.digest)
        self.steps = make_steps(self.runs[0], self.data, self.teacher, self.context)
        self.assigned_seconds = 0.0
        teacher_features = None
        if self.teacher:
            teacher_features = dry_run(self.teacher.network, self.data.channels, self.data.size)
        for run in self.runs:
            self._start(run, teacher_features)
        # Now, so that the runs of a training that fails early can be traced to this process.
        self.bookkeeper.beat(self.learners)

    def _start(self, run: Run, teacher_features: Features | None) -> None:
        """Build or resume a run's learner; write a record if that fails."""

        def build() -> Learner:
            learner = Learner(
                run,
                num_classes=self.data.num_classes,
                in_channels=self.data.channels,
                size=self.data.size,
                train_labels=self.data.train_labels,
                teacher=teacher_features,
                teacher_head=self.teacher.head() if self.teacher else None,
                teacher_network=self.teacher.network if self.teacher else None,
                device=self.context.device,
                world=self.world,
            )
            if state is None:
                prepare_methods(learner, self.data, self.teacher)
            return learner

        ended, state = self.bookkeeper.open_run(run, self.data, self.teacher)
        if ended:  # killed between the final checkpoint and the record
            return
        try:
            learner = self.world.run_or_fail_together(build)
            if state is not None:
                self._check_data(run, state)
                learner_state.restore(learner, state)
                resumed_at = f"{learner.phase} epoch {learner.epoch}, step {learner.step}"
                learner.attempts.append(f"resumed at {resumed_at}")
        except DataChanged:
            raise
        except Incompatible as reason:
            self.bookkeeper.write(run, Record(run.id, "skipped", reason=_one_line(reason)))
            return
        except (Exception, SystemExit) as error:
            self._raise_if_lost(error)
            trace = traceback.format_exc()
            record = Record(run.id, "failed", reason=_one_line(error), traceback=trace)
            self.bookkeeper.write(run, record)
            return
        self.learners.append(learner)
        if learner.phase == "end":  # a checkpoint of an earlier version, after the last epoch
            self._finish(learner)

    def _check_data(self, run: Run, state: Mapping[str, Any]) -> None:
        """Check that a run was begun on the same data.

        Raises:
            DataChanged: it was begun on others. Earlier versions did not store their digest.
        """
        begun_on = state.get("data") or self.data.digest
        made_of = {run.dataset: MadeOf(begun_on, (run.id,), 1)}
        check_loaded(run.dataset, self.data.digest, made_of)

    # -- steps of the loop ------------------------------------------------------------------

    def _running(self) -> list[Learner]:
        return [x for x in self.learners if x.status == "running"]

    def _run_or_fail(self, learner: Learner, action: Callable[[], None]) -> None:
        """Run ``action``; if it raises on any rank, mark this learner as failed."""
        try:
            self.world.run_or_fail_together(action)
        except (Exception, SystemExit) as error:
            self._raise_if_lost(error)
            learner.status, learner.reason = "failed", _one_line(error)
            learner.trace, full = traceback.format_exc(), is_out_of_memory(error)
        else:
            return
        if full:
            learner.optimizer.zero_grad(set_to_none=True)
            release_gpu_memory(self.context.device)

    def _raise_if_lost(self, error: BaseException) -> None:
        """Raise ``DeviceLost`` after an error that the device does not recover from."""
        if lost(error):
            raise DeviceLost(_one_line(error)) from error

    def _between_steps(self, group: list[Learner]) -> None:
        """Write heartbeats and checkpoints if they are due; stop if asked to."""
        if self.bookkeeper.beat_due():
            self.bookkeeper.beat(group)
        due, stop = self.world.any_rank(self.bookkeeper.save_due(), self.context.stop())
        if due or stop:
            self.steps.join()
            self._assign_shared_seconds(group)
            self.bookkeeper.save(self._running())
        if stop:
            raise Stopped

    def _end_epoch(self, learner: Learner, phase: str) -> None:
        """Check a learner for divergence, evaluate it, and advance it to the next epoch."""
        if learner.diverged():
            return
        if phase == "pretrain":
            learner.next_epoch()
            return

        def evaluate() -> None:
            data = self.data
            test = learner.evaluate(self._eval_batches(data.test_images, data.test_labels))
            val = None
            if data.val_images is not None and data.val_labels is not None:
                val = learner.evaluate(self._eval_batches(data.val_images, data.val_labels))
            learner.end_epoch(test, val)

        self._run_or_fail(learner, evaluate)

    def _eval_batches(self, images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this rank's batches of a test or validation set."""
        rank, ranks = self.world.rank, self.world.size
        return eval_batches(images, labels, self.data, evaluation.BATCH, rank=rank, ranks=ranks)

    def _assign_shared_seconds(self, group: list[Learner]) -> None:
        """Add the time of batches and teacher in full to every learner: alone it would need it."""
        seconds = self.steps.clock.settle() - self.assigned_seconds
        self.assigned_seconds += seconds
        for learner in group:
            learner.teacher_seconds += seconds

    def _finish(self, learner: Learner) -> None:
        self.steps.release(learner)
        self.bookkeeper.finish(learner, self.data, self.teacher)
        self.learners.remove(learner)


def _one_line(error: BaseException) -> str:
    """Return the reason that a record gives for an exception."""
    text = readable(" ".join(str(error).split()))
    if is_out_of_memory(error):
        text += " (out of memory: a smaller executor.cohort or batch_size needs less)"
    plain = isinstance(error, Incompatible | ContractBroken)
    return text if text and plain else f"{type(error).__name__}: {text}"
