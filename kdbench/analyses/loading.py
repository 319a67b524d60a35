"""Runs to subjects: their networks, methods, teachers and data from the folders they lie in."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from kdbench.analyses.trained_run import AnalysisError, TeacherOnData, TrainedRun, labels
from kdbench.data.dataset import LoadedData, load
from kdbench.grid.run import Run, Teacher
from kdbench.grid.settings import Dataset
from kdbench.method import Method, Setup
from kdbench.models import zoo
from kdbench.models.network import Network
from kdbench.runs import records
from kdbench.runs.records import Record
from kdbench.training import teacher as teachers
from kdbench.training.build import build_methods, dry_run
from kdbench.training.checkpoint import CheckpointDamaged, trained


@dataclass
class Library:
    """Loads runs; what several of them share, data and teachers, is loaded once.

    Attributes:
        runs: folder of runs. root: folder of data sets. device: to compute on.
    """

    runs: Path
    root: Path
    device: torch.device
    _data: dict[Dataset, LoadedData] = field(default_factory=dict)
    _guides: dict[tuple[Teacher, Dataset], TeacherOnData] = field(default_factory=dict)

    def subjects(self, ids: Sequence[str]) -> list[TrainedRun]:
        """Runs by their ids, in this order.

        A run without a teacher is given that of the first run beside it that has one, if possible
        of one with the same student.

        Raises:
            UserError: a run that has not ended well, lacks its checkpoint, or its data.
        """
        found = self.found(ids)
        guides = [run for run in found if run.teacher]
        made = []
        for run, label in zip(found, labels(found), strict=True):
            near = [run] if run.teacher else [x for x in guides if x.student == run.student]
            taught = next(iter(near or guides), None)
            made.append(self._subject(run, label, taught.teacher if taught else None))
        return made

    def found(self, ids: Sequence[str]) -> list[Run]:
        """Runs by their ids, in this order, each once.

        Raises:
            UserError: none, or one that has not ended well.
        """
        found = {run.id: run for run in (_run(self.runs, run_id) for run_id in ids)}
        if not found:
            raise AnalysisError("no runs: give ids of runs, or --grid")
        return list(found.values())

    def network(self, run: Run) -> Network:
        """The network that a run trained, on the device, frozen and in eval mode."""
        return self._loaded(run)[0]

    def data(self, dataset: Dataset) -> LoadedData:
        """A data set on the device."""
        if dataset not in self._data:
            self._data[dataset] = load(dataset, self.root, self.device)
        return self._data[dataset]

    def _subject(self, run: Run, label: str, teacher: Teacher | None) -> TrainedRun:
        data = self.data(run.dataset)
        network, state = self._loaded(run)
        guide = self._guide(teacher, run.dataset) if teacher else None
        # Shapes are read off on the CPU, as in training.
        seen = dry_run(copy.deepcopy(network).cpu(), data.channels, data.size)
        setup = Setup(
            student=seen,
            teacher=dry_run(guide.loaded.network, data.channels, data.size)
            if guide and run.teacher
            else seen,
            train_labels=data.train_labels.cpu(),
            batch_size=run.training.batch_size,
            num_classes=data.num_classes,
            teacher_head=guide.loaded.head() if guide and run.teacher else None,
            seed=run.seed,
        )
        methods = nn.ModuleList(build_methods(run, setup))
        _fill(run, methods, state, "methods")
        methods.to(self.device)
        own = [method for method in methods if isinstance(method, Method)]
        return TrainedRun(run, label, network, own, guide, data)

    def _loaded(self, run: Run) -> tuple[Network, dict[str, dict[str, Tensor]]]:
        """A run's network, and all that its checkpoint holds."""
        data = self.data(run.dataset)
        state = _checkpoint(self.runs, run)
        network = zoo.create(run.student, num_classes=data.num_classes, in_channels=data.channels)
        _fill(run, network, state, "model")
        network.to(self.device).to(memory_format=torch.channels_last)
        return network, state

    def _guide(self, teacher: Teacher, dataset: Dataset) -> TeacherOnData:
        if (teacher, dataset) not in self._guides:
            data = self.data(dataset)
            loaded = teachers.load(
                self.runs,
                teacher,
                num_classes=data.num_classes,
                in_channels=data.channels,
                device=self.device,
            )
            self._guides[teacher, dataset] = TeacherOnData(teacher.arch, teacher.run, loaded, data)
        return self._guides[teacher, dataset]


def _run(runs: Path, run_id: str) -> Run:
    """A run that has ended well."""
    whole = records.find(runs, run_id)
    if whole.startswith("import-"):
        raise AnalysisError(f"run {whole} is an imported teacher: give runs that kdbench trained")
    _ended(runs, whole)
    return records.read_run(runs, whole)


def _ended(runs: Path, run_id: str) -> Record:
    """The record of a run that has ended well."""
    record = records.read(runs, run_id)
    if record is None or record.status != "done":
        state = f"{record.status}: {record.reason}" if record else "has not ended yet"
        raise AnalysisError(f"run {run_id} {state}")
    return record


def _fill(run: Run, module: nn.Module, state: dict[str, dict[str, Tensor]], key: str) -> None:
    """Load a part of a checkpoint into a module and freeze it.

    Raises:
        AnalysisError: it does not fit.
    """
    try:
        module.load_state_dict(state[key])
    except (RuntimeError, KeyError) as error:
        told = " ".join(str(error).split())
        raise AnalysisError(
            f"run {run.id}: its checkpoint does not fit this kdbench: {told}"
        ) from None
    module.eval().requires_grad_(False)


def _checkpoint(runs: Path, run: Run) -> dict[str, dict[str, Tensor]]:
    """What a run left, verified to be the weights that its record names."""
    path = records.folder(runs, run.id) / "checkpoint.pt"
    if not path.exists():
        raise AnalysisError(f"{path}: no such file; an analysis needs the trained weights")
    try:
        return trained(path, _ended(runs, run.id))
    except CheckpointDamaged as damage:
        raise AnalysisError(str(damage)) from None
