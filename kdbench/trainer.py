"""What a worker holds: device, data, teacher; it trains the cohorts it is given."""

import errno
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch

from kdbench import compiled, teachers
from kdbench.allocator import keep_memory
from kdbench.cohort import Cohort, Stopped
from kdbench.data import Data, load
from kdbench.datasets.source import DataError
from kdbench.jobs import JobError, Work
from kdbench.keeper import Place
from kdbench.lease import Lease
from kdbench.memory import free_of_gpu
from kdbench.ranks import ALONE, PeerFailed, RanksError, World
from kdbench.run import Run, Teacher
from kdbench.sizing import Sizing
from kdbench.spec import Dataset
from kdbench.teachers import LoadedTeacher, TeacherError


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
        self.place = Place(
            runs=task.runs,
            device=self.device,
            checkpoint_seconds=executor.checkpoint_seconds,
            tensorboard=executor.tensorboard,
            stop=stop,
            tell=tell,
            world=world,
        )
        self.sizing = _sizing(task, self.device)  # before anything is loaded
        self._data: dict[Dataset, Data] = {}
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
            data, teacher = self.place.world.agreed(load, patient=True)
            # Of several ranks the first holds the leases, and asks.
            place = replace(self.place, held=lambda i: i not in leases or leases[i].held())
            for piece in self.place.world.told(partial(self.sizing.pieces, runs)):
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

    def _load(self, run: Run) -> tuple[Data, LoadedTeacher | None]:
        self.place.world.rows(run.training.batch_size)
        data = self._load_data(run.dataset)
        return data, self._load_teacher(run.teacher, data) if run.teacher else None

    def _load_data(self, dataset: Dataset) -> Data:
        if dataset not in self._data:
            self._data.clear()  # one at a time: it lives in the device's memory
            self._data[dataset] = load(dataset, self.data_root, self.device)
        return self._data[dataset]

    def _load_teacher(self, teacher: Teacher, data: Data) -> LoadedTeacher:
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


def _sizing(task: Work, device: torch.device) -> Sizing:
    """Judges cohorts by what the device has left for this process."""
    if device.type != "cuda":
        return Sizing(task.memory)
    gpus = torch.cuda.device_count() if ":" not in task.executor.device else 1
    return Sizing(free_of_gpu(device) / math.ceil(task.workers / max(1, gpus)), gpu=True)


def choose_device(name: str, number: int = 0) -> torch.device:
    """The device of worker ``number``: a GPU of its own where there are any."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{number % max(1, torch.cuda.device_count())}"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise JobError(f"device {name}: torch {torch.__version__} sees no GPU here")
    return torch.device(name)
