"""Heartbeats, checkpoints, histories and records of a training cohort.

Only the first of several ranks writes; the others wait for it if the order matters.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import torch

from kdbench import files
from kdbench.data.dataset import LoadedData
from kdbench.grid.run import Run
from kdbench.models.peers import networks
from kdbench.runs import environment, heartbeat, history, records
from kdbench.runs.heartbeat import Beat
from kdbench.runs.lease import LeaseLost
from kdbench.runs.owner import Owner
from kdbench.runs.records import Record
from kdbench.training import checkpoint, learner_results, learner_state, traces
from kdbench.training.context import TrainingContext
from kdbench.training.gpu_facts import gpu_facts, step_facts
from kdbench.training.learner import Learner
from kdbench.training.run_end import RunEnd
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
        data: digest of their data, for checkpoints.
        epoch_began: monotonic time at which the current epoch began.
        epoch_seconds: duration of the last epoch; 0 before its end.
        save_seconds: how long the last checkpoints took to write; 0 before the first.
        step: steps of the current epoch that are done.
        images: images of the current epoch so far, counted once per learner.
    """

    def __init__(self, context: TrainingContext, runs: Sequence[Run], data: str = "") -> None:
        self.context, self.world, self.runs, self.data = context, context.world, runs, data
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

        def write() -> list[str]:
            running = [x for x in learners if x.status == "running"]
            return [x.run.id for x in running if self._lost(partial(self._save, x))]

        self._drop(learners, self.world.first_rank_runs(write))
        self.last_save = time.monotonic()
        self.save_seconds = self.last_save - began

    def _save(self, learner: Learner) -> None:
        folder = records.folder(self.context.runs, learner.run.id)
        writing = partial(self._writing, learner.run.id)
        state = learner_state.state_of(learner) | {"data": self.data}
        checkpoint.save(folder, state, permission=writing)
        history.write(folder, learner.history, permission=writing)
        traces.write(folder, learner.history, permission=writing)

    def _wait_for_device(self) -> None:
        """Wait until a GPU, which works behind the host, has done all steps so far."""
        if self.context.device.type == "cuda":
            torch.cuda.synchronize(self.context.device)

    def drop_lost(self, learners: list[Learner]) -> None:
        """Stop writing runs whose lease another process has taken, assuming this one dead."""
        ids = [x.run.id for x in learners if x.status != "lost"]
        lost = self.world.first_rank_runs(lambda: [i for i in ids if not self.context.held(i)])
        self._drop(learners, lost)

    def _drop(self, learners: list[Learner], lost: Collection[str]) -> None:
        for learner in learners:
            if learner.run.id in lost:
                learner.status = "lost"
                self._report_lost(learner.run)

    def _report_lost(self, run: Run) -> None:
        self.context.report((), f"{run.title}, {run.method}: taken over by another process")

    @contextmanager
    def _writing(self, run_id: str) -> Iterator[None]:
        """Enter the context in which a file of a run is put in place.

        Raises:
            LeaseLost: another process has taken the lease, or has written the run's record.
        """
        with self.context.writing(run_id):
            if records.has_record(self.context.runs, run_id):
                raise LeaseLost(f"{run_id}: another process has written the record")
            yield

    def _lost(self, write: Callable[[], object]) -> bool:
        """Write files of a run; True if another process has taken the run."""
        try:
            write()
        except LeaseLost:
            return True
        return False

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
            with suppress(OSError):  # losing one does no harm; a full disk ends the next checkpoint
                if self.context.held(x.run.id):
                    heartbeat.write(self.context.runs, beat)
            beats.append(beat)
        self.context.report(beats, "")

    # -- the beginning and the end of a run -------------------------------------------------

    def open_run(
        self, run: Run, data: LoadedData, teacher: LoadedTeacher | None
    ) -> tuple[bool, dict[str, Any] | None]:
        """Prepare the folder of a run; write its record if only that is missing.

        Returns:
            Whether the run has ended, and the checkpoint to resume from; None: from the beginning.
        """
        return self.world.first_rank_runs(partial(self._open_run, run, data, teacher))

    def _open_run(
        self, run: Run, data: LoadedData, teacher: LoadedTeacher | None
    ) -> tuple[bool, dict[str, Any] | None]:
        runs, folder = self.context.runs, records.folder(self.context.runs, run.id)
        records.write_run(runs, run)
        files.sweep(folder)  # only this process writes here, as long as it holds the lease
        state = checkpoint.load(folder)
        if state is None or "optimizer" in state:
            return False, state
        end = RunEnd.of(state, run.id, data, teacher)
        if end is None:
            return False, None
        done = (*end.record.attempts, "finished from the final checkpoint")
        self._end_run(run, RunEnd(replace(end.record, attempts=done), end.history))
        return True, None

    def finish(self, learner: Learner, data: LoadedData, teacher: LoadedTeacher | None) -> None:
        """Write the final checkpoint, history and record of a learner that has ended.

        The record comes last, so that a run with a record has all its other files. Until then, the
        run can be finished from its final checkpoint.
        """
        self.drop_lost([learner])
        if learner.status != "lost":
            learner.status = "done" if learner.status == "running" else learner.status
            self.world.first_rank_runs(partial(self._finish, learner, data, teacher))

    def _finish(self, learner: Learner, data: LoadedData, teacher: LoadedTeacher | None) -> None:
        run, status = learner.run, learner.status
        weights = checkpoint.digest(networks(learner.student)[0].state_dict())
        record = Record(
            run=run.id,
            status=status,  # type: ignore[arg-type]
            reason=learner.reason,
            result=learner_results.result(learner, weights, data, teacher),
            cost=learner_results.cost(learner, data),
            traceback=learner.trace,
            environment=self._environment(learner),
            attempts=tuple(learner.attempts),
        )
        self._end_run(run, RunEnd(record, learner.history), learner if status == "done" else None)

    def write(self, run: Run, record: Record) -> None:
        """Write the record of a run that did not begin."""
        end = RunEnd(replace(record, environment=self._environment()), None)
        self.world.first_rank_runs(partial(self._end_run, run, end))

    def _end_run(self, run: Run, end: RunEnd, learner: Learner | None = None) -> None:
        """Write the files of a run that has ended, its record last, and report it.

        Args:
            learner: whose final checkpoint is written first; None: no checkpoint.
        """
        runs, writing = self.context.runs, partial(self._writing, run.id)

        def write() -> None:
            if learner:
                folder, state = records.folder(runs, run.id), end.final_state(learner)
                checkpoint.save(folder, state, final=True, permission=writing)
            end.write(runs, tensorboard=self.context.tensorboard, permission=writing)

        if self._lost(write):
            self._report_lost(run)
            return
        record = end.record
        acc = f" {record.result.test_acc:.2f} %" if record.result else ""
        reason = f" ({record.reason})" if record.reason else ""
        self.context.report((), f"{run.title}, {run.method}: {record.status}{acc}{reason}")

    def _environment(self, learner: Learner | None = None) -> dict[str, Any]:
        """Describe where and when this training takes place, as in a record."""
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
        return trained_on | ({"ranks": self.world.size} if self.world.size > 1 else {})
