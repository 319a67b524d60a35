"""A worker: claims cohorts of runs, loads their data and teacher, and trains them."""

import contextlib
import errno
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from kdbench.data.dataset import LoadedData, load
from kdbench.data.readers.base import DataError
from kdbench.execution.devices import check_possible, choose_device
from kdbench.execution.memory_fit import MemoryFit
from kdbench.execution.stopping_reason import INTACT
from kdbench.execution.work import JobError, Work, missing
from kdbench.grid.run import Run, Teacher
from kdbench.grid.settings import Dataset
from kdbench.runs import data_digests, lease, records
from kdbench.runs.data_digests import DataChanged
from kdbench.runs.lease import Lease
from kdbench.runs.owner import Owner
from kdbench.training import compiled, teacher_accuracy
from kdbench.training import teacher as teachers
from kdbench.training.cohort import Cohort, Stopped
from kdbench.training.context import TrainingContext
from kdbench.training.device import prepare
from kdbench.training.memory import free_gpu_memory, keep_memory
from kdbench.training.ranks import ALONE, PeerFailed, RanksError, World
from kdbench.training.teacher import LoadedTeacher, TeacherError


class Worker:
    """One process that trains cohorts, or one of several ranks that train them together.

    Cohorts that are trained one after the other share the data and the teacher in memory.

    Args:
        task: the cohorts, the folders and the executor.
        number: of this worker, from 0; chooses its GPU.
        stop: called after every step; True ends the training.
        report: called with heartbeats and with lines to show.
        world: the ranks that train together. Each of them has a worker, inside
            ``ranks.join_ranks``; the first rank takes the locks and writes.
    """

    def __init__(
        self,
        task: Work,
        number: int,
        stop: Callable[[], bool],
        report: Callable[..., None],
        world: World = ALONE,
    ) -> None:
        """Prepare the device.

        Raises:
            JobError: it cannot be used, or cannot do what a run asks for.
        """
        executor = task.executor
        self.task, self.stop, self.world = task, stop, world
        self.device = choose_device(
            executor.device, number if world.size == 1 else world.local_rank
        )
        if self.device.type == "cpu":
            torch.set_num_threads(executor.threads)
            keep_memory()
        self.context = TrainingContext(
            runs=task.runs,
            device=self.device,
            checkpoint_seconds=executor.checkpoint_seconds,
            graphs=executor.graphs,
            streams=executor.streams,
            tensorboard=executor.tensorboard,
            stop=stop,
            report=report,
            world=world,
        )
        with _usable(self.device):
            runs = (run for cohort in task.cohorts for run in cohort)
            check_possible(runs, executor, self.device)
            prepare(self.device)
            self.memory_fit = _memory_fit(task, self.device)  # before anything is loaded
        self._data: dict[Dataset, LoadedData] = {}
        self._teacher: tuple[Teacher, Dataset, LoadedTeacher] | None = None

    def run(self) -> None:
        """Train cohorts until this worker can train none of those that are left.

        Raises:
            JobError: training cannot continue for any run: data is missing, the disk is full.
            RankLost: another rank died. This worker ends too; another one resumes its runs.
        """
        pending = list(self.task.cohorts)
        while pending and not self._stopping():
            busy = False
            for cohort in list(pending):
                if self._stopping():
                    break
                state = self.attempt(cohort)
                if state == "ended":
                    pending.remove(cohort)
                busy = busy or state == "trained"
            if pending and not busy:
                time.sleep(0.2)  # another worker trains the remaining runs, or their teacher

    def _stopping(self) -> bool:
        """Check whether any rank is to stop."""
        return self.world.any_rank(self.stop())[0]

    def attempt(self, cohort: Sequence[Run], owner: Owner | None = None) -> str:
        """Train the runs of a cohort that can be trained now.

        Args:
            owner: holder of the leases; None: this process.

        Returns:
            "ended": nothing is left to train. "trained": some runs were trained, perhaps not to
            their end. "waiting": the teacher has no record yet, or another worker trains the rest.

        Raises:
            JobError: data is missing, the disk is full, the teacher is damaged.
        """
        with _disk_errors_in_one_line(self.task.runs), contextlib.ExitStack() as held:
            leases: dict[str, Lease] = {}
            claim = partial(self._claim, cohort, owner or Owner.me(), held, leases)
            state, claimed = self.world.first_rank_runs(claim)
            if claimed:
                self._train(claimed, leases)
        return state

    def _claim(
        self,
        cohort: Sequence[Run],
        owner: Owner,
        held: contextlib.ExitStack,
        leases: dict[str, Lease],
    ) -> tuple[str, list[Run]]:
        """Lease the runs of a cohort that can be trained now.

        The cohort has a lease, too, so that two workers do not split its runs between them, each
        computing the teacher's forward. It becomes stale with the leases of the runs.

        Args:
            held: receives the leases, to release them.
            leases: receives the leases by the runs' ids.

        Returns:
            The state as ``attempt`` returns it, and the leased runs.
        """
        runs = self.task.runs
        todo = missing(cohort, runs)
        if not todo:
            return "ended", []
        teacher = todo[0].teacher
        if teacher:
            record = records.read(runs, teacher.run)
            if record is None:
                return "waiting", []
            if record.status != "done":
                return "ended", []  # blocked, as ``kdbench status`` and the tables report
        together = runs / ".cohorts" / cohort[0].id
        folders = {run.id: records.folder(runs, run.id) for run in todo}
        lease.watch((together, *folders.values()))
        whole = lease.acquire(together, owner)
        if whole is None:
            return "waiting", []
        held.callback(whole.release)
        for run_id, folder in folders.items():
            acquired = lease.acquire(folder, owner)
            if acquired is not None:
                held.callback(acquired.release)
                leases[run_id] = acquired
        # Another worker may have written a record just before its lease was taken here.
        claimed = missing((run for run in todo if run.id in leases), runs)
        return ("trained" if claimed else "waiting"), claimed

    def _train(self, runs: list[Run], leases: Mapping[str, Lease]) -> None:
        """Train runs that can share a teacher; each leaves a record, or a checkpoint if stopped.

        Args:
            leases: the leases that this process holds, by the runs' ids.

        Raises:
            JobError: data is missing or has changed, the disk is full, the teacher is damaged.
        """
        prepare(self.device, runs[0].training.precision)
        if any(run.training.compile for run in runs):
            compiled.discard_compiled()
        try:
            load = partial(self._load, runs[0])
            data, teacher = self.world.run_or_fail_together(load, patient=True)
            # Only the first of several ranks holds leases, and only it writes.
            context = replace(
                self.context,
                held=lambda i: i not in leases or leases[i].held(),
                writing=lambda i: leases[i].writing() if i in leases else contextlib.nullcontext(),
            )
            for cohort in self.world.first_rank_runs(partial(self.memory_fit.pieces, runs)):
                Cohort(cohort, teacher, data, context).train()
        except Stopped:
            return
        except (DataError, DataChanged, TeacherError, RanksError) as error:
            raise JobError(str(error)) from error

    def _load(self, run: Run) -> tuple[LoadedData, LoadedTeacher | None]:
        self.world.rows(run.training.batch_size)
        data = self._load_data(run.dataset)
        return data, self._load_teacher(run.teacher, run.dataset, data) if run.teacher else None

    def _load_data(self, dataset: Dataset) -> LoadedData:
        if dataset not in self._data:
            self._data.clear()  # keep only one data set: it is in the device's memory
            data = load(dataset, self.task.data, self.device)
            data_digests.check_loaded(dataset, data.digest, self.task.made_of)
            self._data[dataset] = data
        return self._data[dataset]

    def _load_teacher(self, teacher: Teacher, dataset: Dataset, data: LoadedData) -> LoadedTeacher:
        if self._teacher is None or self._teacher[:2] != (teacher, dataset):
            loaded = teachers.load(
                self.task.runs,
                teacher,
                num_classes=data.num_classes,
                in_channels=data.channels,
                device=self.device,
            )
            loaded = teacher_accuracy.on_data(
                loaded, self.task.runs, teacher, dataset, data, self.device
            )
            self._teacher = (teacher, dataset, loaded)
        return self._teacher[2]


def _memory_fit(task: Work, device: torch.device) -> MemoryFit:
    """Return the check whether a cohort fits into the memory left for this process."""
    if device.type != "cuda":
        return MemoryFit(task.memory)
    gpus = torch.cuda.device_count() if ":" not in task.executor.device else 1
    share = free_gpu_memory(device) / math.ceil(task.workers / max(1, gpus))
    return MemoryFit.on_gpu(share, task.executor)


@contextlib.contextmanager
def _disk_errors_in_one_line(runs: Path) -> Iterator[None]:
    """Turn an error in writing, here or on another rank, into a ``JobError``."""
    try:
        yield
    except PeerFailed as error:
        raise JobError(str(error)) from error
    except OSError as error:
        what = "disk full" if error.errno == errno.ENOSPC else (error.strerror or str(error))
        raise JobError(f"{error.filename or runs}: {what}; {INTACT}") from error


@contextlib.contextmanager
def _usable(device: torch.device) -> Iterator[None]:
    """Turn an error in the first calls to a device into a ``JobError``."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise JobError(f"executor.device: {device}: torch cannot use it: {reason}") from error
