"""What a worker holds: device, data, teacher; it trains the cohorts it is given."""

import contextlib
import errno
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from kdbench.data.dataset import LoadedData, load
from kdbench.data.readers.base import DataError
from kdbench.execution.memory_fit import MemoryFit
from kdbench.execution.work import JobError, Work, missing
from kdbench.grid.run import Run, Teacher
from kdbench.grid.settings import Dataset
from kdbench.runs import lease, records
from kdbench.runs.lease import Lease, Owner
from kdbench.training import compiled
from kdbench.training import teacher as teachers
from kdbench.training.cohort import Cohort, Stopped
from kdbench.training.context import TrainingContext
from kdbench.training.memory import free_of_gpu, keep_memory
from kdbench.training.ranks import ALONE, PeerFailed, RanksError, World
from kdbench.training.teacher import LoadedTeacher, TeacherError


class Trainer:
    """Trains cohorts one after another, keeping what they share."""

    def __init__(
        self,
        task: Work,
        number: int,
        stop: Callable[[], bool],
        tell: Callable[..., None],
        world: World = ALONE,
    ) -> None:
        executor = task.executor
        own = number if world.size == 1 else world.local_rank
        self.device = choose_device(executor.device, own)
        if self.device.type == "cpu":
            torch.set_num_threads(executor.threads)
            keep_memory()
        self.data_root = task.data
        self.place = TrainingContext(
            runs=task.runs,
            device=self.device,
            checkpoint_seconds=executor.checkpoint_seconds,
            tensorboard=executor.tensorboard,
            stop=stop,
            report=tell,
            world=world,
        )
        self.sizing = _sizing(task, self.device)  # before anything is loaded
        self._data: dict[Dataset, LoadedData] = {}
        self._teacher: tuple[Teacher, LoadedTeacher] | None = None

    def train(self, runs: list[Run], leases: Mapping[str, Lease]) -> None:
        """Train runs that can share a teacher; each leaves a record, or a checkpoint if stopped.

        Args:
            runs: what to train. leases: that this process holds on them, by their ids.

        Raises:
            JobError: what ends all runs alike: data missing, disk full, teacher damaged.
        """
        if any(run.training.compile for run in runs):
            hindrance = compiled.hindrance(self.device)
            if hindrance:
                raise JobError(f"protocol.compile: true: {hindrance}; accepted here: false")
            compiled.forget()
        try:
            load = partial(self._load, runs[0])
            data, teacher = self.place.world.run_or_fail_together(load, patient=True)
            # Of several ranks the first holds the leases, and asks.
            place = replace(self.place, held=lambda i: i not in leases or leases[i].held())
            for piece in self.place.world.first_rank_runs(partial(self.sizing.pieces, runs)):
                Cohort(piece, teacher, data, place).train()
        except Stopped:
            return
        except (DataError, TeacherError, RanksError, PeerFailed) as error:
            raise JobError(str(error)) from error
        except OSError as error:
            what = "disk full" if error.errno == errno.ENOSPC else (error.strerror or str(error))
            where = error.filename or self.place.runs
            raise JobError(
                f"{where}: {what}; checkpoints and records so far are whole, the same command "
                "goes on from them"
            ) from error

    def _load(self, run: Run) -> tuple[LoadedData, LoadedTeacher | None]:
        self.place.world.rows(run.training.batch_size)
        data = self._load_data(run.dataset)
        return data, self._load_teacher(run.teacher, data) if run.teacher else None

    def _load_data(self, dataset: Dataset) -> LoadedData:
        if dataset not in self._data:
            self._data.clear()  # one at a time: it lives in the device's memory
            self._data[dataset] = load(dataset, self.data_root, self.device)
        return self._data[dataset]

    def _load_teacher(self, teacher: Teacher, data: LoadedData) -> LoadedTeacher:
        if self._teacher is None or self._teacher[0] != teacher:
            loaded = teachers.load(
                self.place.runs,
                teacher,
                num_classes=data.num_classes,
                in_channels=data.channels,
                device=self.device,
            )
            self._teacher = (teacher, loaded)
        return self._teacher[1]


def _sizing(task: Work, device: torch.device) -> MemoryFit:
    """Judges cohorts by what the device has left for this process."""
    if device.type != "cuda":
        return MemoryFit(task.memory)
    gpus = torch.cuda.device_count() if ":" not in task.executor.device else 1
    return MemoryFit(free_of_gpu(device) / math.ceil(task.workers / max(1, gpus)), gpu=True)


def choose_device(name: str, number: int = 0) -> torch.device:
    """The device of worker ``number``: a GPU of its own where there are any."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{number % max(1, torch.cuda.device_count())}"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise JobError(f"device {name}: torch {torch.__version__} sees no GPU here")
    return torch.device(name)


def work(
    task: Work,
    number: int,
    stop: Callable[[], bool],
    tell: Callable[..., None],
    world: "World | None" = None,
) -> None:
    """Train cohorts until none is left that this worker could train.

    Args:
        task: what to do.
        number: of this worker, from 0; chooses its GPU.
        stop: asked after every step whether to stop.
        tell: given heartbeats and lines.
        world: the ranks that are this worker together, where they are several: each of them calls
            this, inside ``ranks.joined``; the first takes the locks and writes.

    Raises:
        JobError: data missing, disk full: something that ends all runs alike.
        RankLost: another rank died: so does this worker, and what it held goes on in another.
    """
    world = world or ALONE
    trainer = Trainer(task, number, stop, tell, world)
    pending = list(task.cohorts)
    while pending and not world.any_rank(stop())[0]:
        busy = False
        for cohort in list(pending):
            if world.any_rank(stop())[0]:
                break
            state = attempt(cohort, task, trainer)
            if state == "ended":
                pending.remove(cohort)
            busy = busy or state == "trained"
        if pending and not busy:
            time.sleep(0.2)  # somebody else trains what is left, or its teacher


def attempt(
    cohort: Sequence[Run], task: Work, trainer: "Trainer", owner: Owner | None = None
) -> str:
    """Train what can be trained of a cohort.

    Args:
        owner: who asks; None: this process.

    Returns:
        "ended": nothing is left to do. "trained": something was trained, or stopped. "waiting":
        for the teacher's record, or for somebody else who trains what is left.
    """
    with contextlib.ExitStack() as held:
        leases: dict[str, Lease] = {}
        who = owner or Owner.me()
        claim = partial(_claim, cohort, task, who, held, leases)
        state, mine = trainer.place.world.first_rank_runs(claim)
        if mine:
            trainer.train(mine, leases)
    return state


def _claim(
    cohort: Sequence[Run],
    task: Work,
    owner: Owner,
    held: contextlib.ExitStack,
    leases: dict[str, Lease],
) -> tuple[str, list[Run]]:
    """Take the runs of a cohort that can be trained, and say what state that makes."""
    todo = missing(cohort, task.runs)
    if not todo:
        return "ended", []
    teacher = todo[0].teacher
    if teacher:
        record = records.read(task.runs, teacher.run)
        if record is None:
            return "waiting", []
        if record.status != "done":
            return "ended", []  # blocked: status and tables say so
    if not _lock(task.runs / ".cohorts" / f"{cohort[0].id}.lock", held):
        return "waiting", []
    for run in todo:
        got = lease.acquire(records.folder(task.runs, run.id), owner)
        if got is not None:
            held.callback(got.release)
            leases[run.id] = got
    mine = missing((run for run in todo if run.id in leases), task.runs)
    return ("trained" if mine else "waiting"), mine


def _lock(path: Path, held: contextlib.ExitStack) -> bool:
    """Take a lock for as long as ``held`` lives; False where another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        held.enter_context(FileLock(path).acquire(timeout=0))
    except Timeout:
        return False
    return True
