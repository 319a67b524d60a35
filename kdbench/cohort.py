"""A cohort: learners that share teacher, data and seed, and so one teacher forward per batch.

This is the training loop. Each learner ends in a record; what ends one learner ends no other.
"""

import json
import os
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from kdbench import attempts, checkpoint, environment, evaluation, outcome, progress, records
from kdbench.batches import eval_batches, train_batches
from kdbench.build import dry_run
from kdbench.clock import Clock
from kdbench.data import Data
from kdbench.learner import Learner
from kdbench.method import Features, Incompatible
from kdbench.progress import Beat
from kdbench.ranks import ALONE, World
from kdbench.records import Record
from kdbench.run import Run
from kdbench.teachers import LoadedTeacher


class Stopped(Exception):
    """The trainer was asked to stop; everything is in checkpoints."""


@dataclass(frozen=True)
class Place:
    """Where and how to train; nothing of it moves a number.

    Attributes:
        runs: folder of runs. device: to train on.
        checkpoint_seconds: between checkpoints; 0: after every step.
        stop: asked after every step whether to stop.
        tell: given the learners' heartbeats now and then, and one line for each that has ended.
        held: whether a run, by its id, is still this process's to write; asked before each write
            that counts.
        world: the ranks that train together; the first alone writes and tells.
    """

    runs: Path
    device: torch.device
    checkpoint_seconds: float = 60.0
    beat_seconds: float = 1.0
    tensorboard: bool = False
    stop: Callable[[], bool] = lambda: False
    tell: Callable[[Sequence[Beat], str], None] = lambda beats, line: None
    held: Callable[[str], bool] = lambda run_id: True
    world: World = ALONE


@dataclass
class Cohort:
    """Learners in training.

    Attributes:
        runs: what to train; ``Run.shared`` of all of them is the same.
        teacher: None where no run has one.
    """

    runs: Sequence[Run]
    teacher: LoadedTeacher | None
    data: Data
    place: Place
    learners: list[Learner] = field(default_factory=list)

    def train(self) -> None:
        """Train to the end; each run leaves a record.

        Raises:
            Stopped: the place asked to stop; every learner's state lies in a checkpoint.
            OSError: the disk is full or cannot be written; what was written before is whole.
            RankLost: another rank has left; the last checkpoints hold.
        """
        self.world = self.place.world
        if len({run.shared for run in self.runs}) != 1:
            raise ValueError("the runs of a cohort share teacher, data, batches and seed")
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self.clock = Clock(self.place.device)
        self.clock_shared = 0.0
        self.saved = self.told = self.epoch_began = time.monotonic()
        self.images_per_s, self.epoch_seconds = 0.0, 0.0
        seen = None
        if self.teacher:
            seen = dry_run(self.teacher.network, self.data.channels, self.data.size)
        for run in self.runs:
            self._start(run, seen)
        # Before anything can go wrong, say who has these runs in hand.
        self._beat(list(self.learners), 0, 0)
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
        self.world.told(partial(records.write_run, self.place.runs, run))
        folder = records.folder(self.place.runs, run.id)
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
                device=self.place.device,
                world=self.world,
            )
            learner = self.world.agreed(build)
            state = self.world.told(partial(checkpoint.load, folder))
            if state is not None and "optimizer" in state:
                learner.load_state(state)
                where = f"{learner.phase} epoch {learner.epoch}, step {learner.step}"
                learner.attempts.append(f"resumed at {where}")
        except Incompatible as reason:
            self._write(Record(run.id, "skipped", reason=_line(reason)))
            return
        except (Exception, SystemExit) as error:
            self._write(
                Record(run.id, "failed", reason=_line(error), traceback=traceback.format_exc())
            )
            return
        self.learners.append(learner)
        if learner.phase == "end":  # killed between the last epoch and the record
            self._finish(learner)

    # -- one epoch --------------------------------------------------------------------------

    def _epoch(self, phase: str, epoch: int, group: list[Learner]) -> None:
        self.epoch_began = time.monotonic()
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
        self.epoch_seconds = time.monotonic() - self.epoch_began
        self._beat(group, last, images_seen)
        for learner in group:
            if learner.phase == "end" or learner.status != "running":
                self._finish(learner)
        if self.world.any(self.place.stop())[0]:
            self._save_all()
            raise Stopped

    def _ask_teacher(self, images: Tensor, learners: list[Learner]) -> Features | None:
        if self.teacher is None or not any(x.needs_teacher for x in learners):
            return None
        half = learners[0].run.training.precision == "bf16"
        with torch.autocast(self.place.device.type, torch.bfloat16, enabled=half):
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
            self.world.agreed(action)
        except (Exception, SystemExit) as error:
            learner.status, learner.reason = "failed", _line(error)
            learner.trace = traceback.format_exc()

    # -- between steps ----------------------------------------------------------------------

    def _rest(self, group: list[Learner], step: int, images_seen: int) -> None:
        """Between two steps: heartbeat, checkpoint when due, stop when asked."""
        now = time.monotonic()
        if now - self.told >= self.place.beat_seconds:
            self._beat(group, step, images_seen)
        due = self.world.first and now - self.saved >= self.place.checkpoint_seconds
        due, stop = self.world.any(due, self.place.stop())
        if due or stop:
            self._share_clock(group)
            self._save_all()
        if stop:
            raise Stopped

    def _save_all(self) -> None:
        self._drop_lost(self._active())

        def save() -> None:
            for learner in self._active():
                folder = records.folder(self.place.runs, learner.run.id)
                checkpoint.save(folder, learner.state())
                outcome.write_history(folder, learner)

        self.world.told(save)
        self.saved = time.monotonic()

    def _drop_lost(self, learners: list[Learner]) -> None:
        """Leave alone what another has taken over, thinking this process dead: it is theirs now."""
        ids = [x.run.id for x in learners if x.status != "lost"]
        gone = set(self.world.told(lambda: [i for i in ids if not self.place.held(i)]))
        for learner in learners:
            if learner.run.id in gone:
                learner.status = "lost"
                line = f"{learner.run.title}, {learner.run.method}: taken over by another"
                self.place.tell((), line)

    def _share_clock(self, group: list[Learner]) -> None:
        """Teacher and batches count in full for every learner: alone it would have paid them."""
        spent = self.clock.settle() - self.clock_shared
        self.clock_shared += spent
        for learner in group:
            learner.teacher_seconds += spent

    def _beat(self, group: list[Learner], step: int, images_seen: int) -> None:
        now = time.monotonic()
        self.told = now
        if not self.world.first:
            return
        elapsed = max(now - self.epoch_began, 1e-9)
        self.images_per_s = images_seen / elapsed
        beats = []
        for x in group:
            if x.status != "running" or x.phase == "end":
                continue
            per_epoch = self.epoch_seconds or elapsed * x.steps / max(step, 1)
            left = x.epochs() - x.epoch + 1 - x.step / x.steps
            left += x.run.training.epochs if x.phase == "pretrain" else 0
            beat = Beat(
                run=x.run.id,
                cohort=self.runs[0].id,
                title=self.runs[0].title,
                phase=x.phase,
                epoch=x.epoch,
                epochs=x.epochs(),
                step=x.step,
                steps=x.steps,
                images_per_s=round(self.images_per_s, 1),
                acc=x.history[-1]["test_acc"] if x.history else None,
                eta=round(left * per_epoch, 1) if step else None,
                pid=os.getpid(),
                host=socket.gethostname(),
                at=time.time(),
            )
            progress.write(self.place.runs, beat)
            beats.append(beat)
        self.place.tell(beats, "")

    # -- the end ----------------------------------------------------------------------------

    def _finish(self, learner: Learner) -> None:
        """Final checkpoint, history, record: in this order, so that a record means all is there."""
        self._drop_lost([learner])
        if learner.status != "lost":
            learner.status = "done" if learner.status == "running" else learner.status
            self.world.told(partial(self._leave, learner))
        self.learners.remove(learner)

    def _leave(self, learner: Learner) -> None:
        status = learner.status
        folder = records.folder(self.place.runs, learner.run.id)
        weights = checkpoint.digest(learner.student.state_dict())
        if status == "done":
            final = {
                "model": learner.student.state_dict(),
                "methods": learner.methods.state_dict(),
                "epoch": learner.run.training.epochs,
                "run": json.dumps(learner.run.to_json()),
            }
            checkpoint.save(folder, final, final=True)
        outcome.write_history(folder, learner)
        if self.place.tensorboard:
            outcome.write_tensorboard(folder, learner)
        self._write(
            Record(
                run=learner.run.id,
                status=status,  # type: ignore[arg-type]
                reason=learner.reason,
                result=outcome.result(learner, weights, self.data, self.teacher),
                cost=outcome.spent(learner, self.data),
                traceback=learner.trace,
                attempts=tuple(learner.attempts),
            ),
            learner.run,
        )

    def _write(self, record: Record, run: Run | None = None) -> None:
        if not self.world.first:
            return
        device = str(self.place.device)
        if self.place.device.type == "cuda":
            device = torch.cuda.get_device_name(self.place.device)
        about = environment.describe(device, torch.get_num_threads())
        about |= {"started": self.started}
        about |= {"ended": datetime.now(UTC).isoformat(timespec="seconds")}
        about |= {"ranks": self.world.size} if self.world.size > 1 else {}
        told = (*attempts.read(self.place.runs, record.run), *record.attempts)
        records.write(self.place.runs, replace(record, environment=about, attempts=told))
        progress.clear(self.place.runs, record.run)
        of = run or next(x for x in self.runs if x.id == record.run)
        acc = f" {record.result.test_acc:.2f} %" if record.result else ""
        reason = f" ({record.reason})" if record.reason else ""
        self.place.tell((), f"{of.title}, {of.method}: {record.status}{acc}{reason}")


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, Incompatible) else f"{type(error).__name__}: {text}"
