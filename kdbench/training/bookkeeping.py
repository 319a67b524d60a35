"""What a training cohort tells and leaves on disk: heartbeats, checkpoints, histories, records.

Of several ranks the first alone writes; the others wait for it where order matters.
"""

import json
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import torch

from kdbench.data.dataset import LoadedData
from kdbench.grid.run import Run
from kdbench.runs import attempts, environment, heartbeat, records
from kdbench.runs.heartbeat import Beat
from kdbench.runs.records import Record
from kdbench.training import checkpoint, learner_results
from kdbench.training.context import TrainingContext
from kdbench.training.learner import Learner
from kdbench.training.teacher import LoadedTeacher


class Bookkeeper:
    """Writes what must outlive the process.

    Attributes:
        place: where. runs: the cohort's.
        epoch_began: monotonic time; set it when an epoch begins.
        epoch_seconds: what the last epoch took; 0 before the first.
    """

    def __init__(self, place: TrainingContext, runs: Sequence[Run]) -> None:
        self.context, self.world, self.runs = place, place.world, runs
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self.saved = self.told = self.epoch_began = time.monotonic()
        self.epoch_seconds = 0.0

    # -- between steps ----------------------------------------------------------------------

    def beat_due(self) -> bool:
        """Whether it is time for a heartbeat."""
        return time.monotonic() - self.told >= self.context.beat_seconds

    def save_due(self) -> bool:
        """Whether it is time for checkpoints; only the first rank ever says so."""
        since = time.monotonic() - self.saved
        return self.world.first and since >= self.context.checkpoint_seconds

    def save(self, learners: list[Learner]) -> None:
        """Checkpoint every learner that is still this process's."""
        self.drop_lost(learners)

        def write() -> None:
            for learner in learners:
                if learner.status == "running":
                    folder = records.folder(self.context.runs, learner.run.id)
                    checkpoint.save(folder, learner.state())
                    learner_results.write_history(folder, learner)

        self.world.first_rank_runs(write)
        self.saved = time.monotonic()

    def drop_lost(self, learners: list[Learner]) -> None:
        """Leave alone what another has taken over, thinking this process dead: it is theirs now."""
        ids = [x.run.id for x in learners if x.status != "lost"]
        gone = set(self.world.first_rank_runs(lambda: [i for i in ids if not self.context.held(i)]))
        for learner in learners:
            if learner.run.id in gone:
                learner.status = "lost"
                line = f"{learner.run.title}, {learner.run.method}: taken over by another"
                self.context.report((), line)

    def beat(self, group: list[Learner], step: int, images_seen: int) -> None:
        """Say how far the learners are."""
        now = time.monotonic()
        self.told = now
        if not self.world.first:
            return
        elapsed = max(now - self.epoch_began, 1e-9)
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
                images_per_s=round(images_seen / elapsed, 1),
                acc=x.history[-1]["test_acc"] if x.history else None,
                eta=round(left * per_epoch, 1) if step else None,
                pid=os.getpid(),
                host=socket.gethostname(),
                at=time.time(),
            )
            heartbeat.write(self.context.runs, beat)
            beats.append(beat)
        self.context.report(beats, "")

    # -- the end ----------------------------------------------------------------------------

    def finish(self, learner: Learner, data: LoadedData, teacher: LoadedTeacher | None) -> None:
        """Final checkpoint, history, record: in this order, so that a record means all is there."""
        self.drop_lost([learner])
        if learner.status != "lost":
            learner.status = "done" if learner.status == "running" else learner.status
            self.world.first_rank_runs(partial(self._leave, learner, data, teacher))

    def _leave(self, learner: Learner, data: LoadedData, teacher: LoadedTeacher | None) -> None:
        status = learner.status
        folder = records.folder(self.context.runs, learner.run.id)
        weights = checkpoint.digest(learner.student.state_dict())
        if status == "done":
            final = {
                "model": learner.student.state_dict(),
                "methods": learner.methods.state_dict(),
                "epoch": learner.run.training.epochs,
                "run": json.dumps(learner.run.to_json()),
            }
            checkpoint.save(folder, final, final=True)
        learner_results.write_history(folder, learner)
        if self.context.tensorboard:
            learner_results.write_tensorboard(folder, learner)
        self.write(
            learner.run,
            Record(
                run=learner.run.id,
                status=status,  # type: ignore[arg-type]
                reason=learner.reason,
                result=learner_results.result(learner, weights, data, teacher),
                cost=learner_results.spent(learner, data),
                traceback=learner.trace,
                attempts=tuple(learner.attempts),
            ),
        )

    def write(self, run: Run, record: Record) -> None:
        """Write a run's record, with where and when it was trained, and tell of it."""
        if not self.world.first:
            return
        device = str(self.context.device)
        if self.context.device.type == "cuda":
            device = torch.cuda.get_device_name(self.context.device)
        about = environment.describe(
            device, torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()
        )
        about |= {"started": self.started}
        about |= {"ended": datetime.now(UTC).isoformat(timespec="seconds")}
        about |= {"ranks": self.world.size} if self.world.size > 1 else {}
        told = (*attempts.read(self.context.runs, record.run), *record.attempts)
        records.write(self.context.runs, replace(record, environment=about, attempts=told))
        heartbeat.clear(self.context.runs, record.run)
        acc = f" {record.result.test_acc:.2f} %" if record.result else ""
        reason = f" ({record.reason})" if record.reason else ""
        self.context.report((), f"{run.title}, {run.method}: {record.status}{acc}{reason}")
