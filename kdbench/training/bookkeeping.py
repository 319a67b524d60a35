"""Heartbeats, checkpoints, histories and records of a training cohort.

Only the first of several ranks writes; the others wait for it if the order matters.
"""

import json
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
from kdbench.runs.owner import Owner
from kdbench.runs.records import Record
from kdbench.training import checkpoint, learner_results, learner_state
from kdbench.training.context import TrainingContext
from kdbench.training.gpu_facts import gpu_facts, step_facts
from kdbench.training.learner import Learner
from kdbench.training.teacher import LoadedTeacher

SAVING = 0.01
"""Share of the training time that writing checkpoints may take."""
QUICK_SECONDS = 0.5
"""Checkpoints written in less time are written as often as ``checkpoint_seconds`` says."""


class Bookkeeper:
    """Writer of everything that must outlive the process.

    Attributes:
        context: where to write and report.
        runs: the cohort's runs.
        epoch_began: monotonic time at which the current epoch began.
        epoch_seconds: duration of the last epoch; 0 before its end.
        save_seconds: how long the last checkpoints took to write; 0 before the first.
        step: steps of the current epoch that are done.
        images: images of the current epoch so far, counted once per learner.
    """

    def __init__(self, context: TrainingContext, runs: Sequence[Run]) -> None:
        self.context, self.world, self.runs = context, context.world, runs
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self.last_save = self.last_beat = self.epoch_began = time.monotonic()
        self.epoch_seconds = self.save_seconds = 0.0
        self.step = self.images = 0
        if context.device.type == "cuda":
            # The peaks in records are those of this cohort, not of earlier ones in this process.
            torch.cuda.reset_peak_memory_stats(context.device)

    # -- epochs and steps -------------------------------------------------------------------

    def begin_epoch(self, step: int) -> None:
        """Start the clock of an epoch, of which ``step`` steps were done before."""
        self.epoch_began = time.monotonic()
        self.step, self.images = step, 0

    def step_done(self, learners: Sequence[Learner], batch_size: int) -> None:
        """Count a step of ``learners`` on a batch."""
        self.step += 1
        self.images += len(learners) * batch_size

    def end_epoch(self, group: list[Learner]) -> None:
        """Stop the clock of the epoch, and write a heartbeat of each learner in ``group``."""
        self._wait_for_device()
        self.epoch_seconds = time.monotonic() - self.epoch_began
        self.beat(group)

    # -- heartbeats and checkpoints ---------------------------------------------------------

    def beat_due(self) -> bool:
        """Check whether it is time for a heartbeat."""
        return time.monotonic() - self.last_beat >= self.context.beat_seconds

    def save_due(self) -> bool:
        """Check whether it is time for checkpoints; False on all ranks but the first.

        If writing takes long, the time between checkpoints grows, unless it is 0.
        """
        interval = self.context.checkpoint_seconds
        if interval and self.save_seconds > QUICK_SECONDS:
            interval = max(interval, self.save_seconds / SAVING)
        return self.world.first and time.monotonic() - self.last_save >= interval

    def save(self, learners: list[Learner]) -> None:
        """Write a checkpoint of every running learner whose lease this process still holds."""
        self._wait_for_device()
        began = time.monotonic()
        self.drop_lost(learners)

        def write() -> None:
            for learner in learners:
                if learner.status == "running":
                    folder = records.folder(self.context.runs, learner.run.id)
                    checkpoint.save(folder, learner_state.state_of(learner))
                    learner_results.write_history(folder, learner)

        self.world.first_rank_runs(write)
        self.last_save = time.monotonic()
        self.save_seconds = self.last_save - began

    def _wait_for_device(self) -> None:
        """Wait until a GPU, which works behind the host, has done all steps so far."""
        if self.context.device.type == "cuda":
            torch.cuda.synchronize(self.context.device)

    def drop_lost(self, learners: list[Learner]) -> None:
        """Stop writing runs whose lease another process has taken, assuming this one dead."""
        ids = [x.run.id for x in learners if x.status != "lost"]
        lost = set(self.world.first_rank_runs(lambda: [i for i in ids if not self.context.held(i)]))
        for learner in learners:
            if learner.run.id in lost:
                learner.status = "lost"
                line = f"{learner.run.title}, {learner.run.method}: taken over by another process"
                self.context.report((), line)

    def beat(self, group: list[Learner]) -> None:
        """Write a heartbeat of each running learner in ``group``, and report them all."""
        if self.world.first:
            self._wait_for_device()
        now = time.monotonic()
        self.last_beat = now
        if not self.world.first:
            return
        elapsed = max(now - self.epoch_began, 1e-9)
        beats, me = [], Owner.me()
        for x in group:
            if x.status != "running" or x.phase == "end":
                continue
            per_epoch = self.epoch_seconds or elapsed * x.steps / max(self.step, 1)
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
                images_per_s=round(self.images / elapsed, 1),
                acc=x.history[-1]["test_acc"] if x.history else None,
                eta=round(left * per_epoch, 1) if self.step else None,
                pid=me.pid,
                host=me.host,
                at=time.time(),
                process=me.process,
            )
            heartbeat.write(self.context.runs, beat)
            beats.append(beat)
        self.context.report(beats, "")

    # -- the end ----------------------------------------------------------------------------

    def finish(self, learner: Learner, data: LoadedData, teacher: LoadedTeacher | None) -> None:
        """Write the final checkpoint, history and record of a learner that has ended.

        The record comes last, so that a run with a record has all its other files.
        """
        self.drop_lost([learner])
        if learner.status != "lost":
            learner.status = "done" if learner.status == "running" else learner.status
            self.world.first_rank_runs(partial(self._write_results, learner, data, teacher))

    def _write_results(
        self, learner: Learner, data: LoadedData, teacher: LoadedTeacher | None
    ) -> None:
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
                cost=learner_results.cost(learner, data),
                traceback=learner.trace,
                attempts=tuple(learner.attempts),
            ),
            learner,
        )

    def write(self, run: Run, record: Record, learner: Learner | None = None) -> None:
        """Write a run's record with the environment and times of its training, and report it.

        Args:
            learner: None if the run did not begin.
        """
        if not self.world.first:
            return
        device = self.context.device
        gpu = gpu_facts(device)
        if gpu:
            gpu |= {"graphs": self.context.graphs, **(step_facts(learner) if learner else {})}
        trained_on = environment.describe(
            torch.cuda.get_device_name(device) if gpu else str(device),
            torch.get_num_threads(),
            torch.backends.cpu.get_cpu_capability(),
            gpu,
        )
        trained_on |= {"started": self.started}
        trained_on |= {"ended": datetime.now(UTC).isoformat(timespec="seconds")}
        trained_on |= {"ranks": self.world.size} if self.world.size > 1 else {}
        all_attempts = (*attempts.read(self.context.runs, record.run), *record.attempts)
        record = replace(record, environment=trained_on, attempts=all_attempts)
        records.write(self.context.runs, record)
        heartbeat.clear(self.context.runs, record.run)
        acc = f" {record.result.test_acc:.2f} %" if record.result else ""
        reason = f" ({record.reason})" if record.reason else ""
        self.context.report((), f"{run.title}, {run.method}: {record.status}{acc}{reason}")
