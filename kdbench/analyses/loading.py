"""Loading of trained runs with their networks, methods, teachers and data."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from kdbench.analyses.trained_run import AnalysisError, TeacherOnData, TrainedRun, labels
from kdbench.data.dataset import LoadedData, load
from kdbench.grid.run import Run, Teacher, is_imported
from kdbench.grid.settings import Dataset
from kdbench.method import Method
from kdbench.models import zoo
from kdbench.models.network import Network
from kdbench.runs import records, short_ids
from kdbench.runs.data_digests import MadeOf, check_loaded
from kdbench.runs.records import Record
from kdbench.training import teacher as teachers
from kdbench.training.build import (
    build_methods,
    build_setup,
    build_student,
    dry_run,
    group_of,
)
from kdbench.training.checkpoint import CheckpointDamaged, trained
from kdbench.training.device import prepare


@dataclass
class Library:
    """A loader of runs that loads shared data sets and teachers only once.

    Attributes:
        runs: folder of runs.
        root: folder of data sets.
        device: device for all networks and data.
    """

    runs: Path
    root: Path
    device: torch.device
    _data: dict[Dataset, LoadedData] = field(default_factory=dict)
    _teachers: dict[tuple[Teacher, Dataset], TeacherOnData] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Prepare the device."""
        prepare(self.device)

    def trained_runs(self, ids: Sequence[str]) -> list[TrainedRun]:
        """Load runs by their ids, in this order.

        A run without a teacher gets the teacher of the first of these runs that has one and trains
        the same student, or else of the first that has one.

        Raises:
            UserError: a run has not finished, its checkpoint or data is missing, or its data have
                changed.
        """
        runs = self.finished(ids)
        distilled = [run for run in runs if run.teacher]
        loaded = []
        for run, label in zip(runs, labels(runs), strict=True):
            alike = [run] if run.teacher else [x for x in distilled if x.student == run.student]
            source = next(iter(alike or distilled), None)
            loaded.append(self._trained_run(run, label, source.teacher if source else None))
        return loaded

    def finished(self, ids: Sequence[str]) -> list[Run]:
        """Return the configurations of finished runs by their ids, in this order, each once.

        Raises:
            UserError: there are no ids, or a run has not finished.
        """
        runs = {run.id: run for run in (_finished_run(self.runs, run_id) for run_id in ids)}
        if not runs:
            raise AnalysisError("no runs: give run ids or --grid")
        return list(runs.values())

    def network(self, run: Run) -> Network:
        """Return the network that a run trained, on the device, frozen and in eval mode.

        Raises:
            UserError: its checkpoint is missing, or its data have changed.
        """
        return self._loaded(run)[0]

    def data(self, dataset: Dataset) -> LoadedData:
        """Return a data set on the device."""
        if dataset not in self._data:
            self._data[dataset] = load(dataset, self.root, self.device)
        return self._data[dataset]

    def _trained_run(self, run: Run, label: str, teacher: Teacher | None) -> TrainedRun:
        data = self.data(run.dataset)
        network, state = self._loaded(run)
        on_data = self._teacher(teacher, run.dataset) if teacher else None
        # A dry run on the CPU gives the shapes, as in training.
        on_cpu = copy.deepcopy(network).cpu()
        whole: nn.Module = on_cpu
        if group_of(run):  # only the deployed network of a group is kept
            shape = {"num_classes": data.num_classes, "in_channels": data.channels}
            whole = build_student(run, **shape)
        student = dry_run(whole, data.channels, data.size)
        own_teacher = on_data.loaded if on_data and run.teacher else None
        features = None
        if own_teacher:
            features = dry_run(own_teacher.network, data.channels, data.size)
        setup = build_setup(
            run,
            on_cpu,
            student,
            features,
            teacher_head=own_teacher.head() if own_teacher else None,
            teacher_network=own_teacher.network if own_teacher else None,
            train_labels=data.train_labels,
            num_classes=data.num_classes,
        )
        modules = nn.ModuleList(build_methods(run, setup))
        _fill(run, modules, state, "methods")
        modules.to(self.device)
        methods = [module for module in modules if isinstance(module, Method)]
        return TrainedRun(run, label, network, methods, on_data, data)

    def _loaded(self, run: Run) -> tuple[Network, dict[str, dict[str, Tensor]]]:
        """Return a run's network and the content of its checkpoint."""
        data = self.data(run.dataset)
        record = _finished_record(self.runs, run.id)
        if record.result:
            made_of = {run.dataset: MadeOf(record.result.data, (run.id,), 1)}
            check_loaded(run.dataset, data.digest, made_of)
        state = _checkpoint(self.runs, run)
        network = zoo.create(run.student, num_classes=data.num_classes, in_channels=data.channels)
        _fill(run, network, state, "model")
        network.to(self.device).to(memory_format=torch.channels_last)
        return network, state

    def _teacher(self, teacher: Teacher, dataset: Dataset) -> TeacherOnData:
        if (teacher, dataset) not in self._teachers:
            data = self.data(dataset)
            loaded = teachers.load(
                self.runs,
                teacher,
                num_classes=data.num_classes,
                in_channels=data.channels,
                device=self.device,
            )
            self._teachers[teacher, dataset] = TeacherOnData(
                teacher.arch, teacher.run, loaded, data
            )
        return self._teachers[teacher, dataset]


def _finished_run(runs: Path, run_id: str) -> Run:
    """Return the configuration of a finished run."""
    full_id = short_ids.complete(runs, run_id)
    if is_imported(full_id):
        raise AnalysisError(f"run {full_id} is an imported teacher: give runs that kdbench trained")
    _finished_record(runs, full_id)
    return records.read_run(runs, full_id)


def _finished_record(runs: Path, run_id: str) -> Record:
    """Return the record of a finished run."""
    record = records.read(runs, run_id)
    if record is None or record.status != "done":
        state = f"{record.status}: {record.reason}" if record else "has not finished yet"
        raise AnalysisError(f"run {run_id} {state}")
    return record


def _fill(run: Run, module: nn.Module, state: dict[str, dict[str, Tensor]], key: str) -> None:
    """Load a part of a checkpoint into a module and freeze it.

    Raises:
        AnalysisError: the checkpoint does not fit.
    """
    try:
        module.load_state_dict(state[key])
    except (RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise AnalysisError(
            f"run {run.id}: its checkpoint does not fit this kdbench: {reason}"
        ) from None
    module.eval().requires_grad_(False)


def _checkpoint(runs: Path, run: Run) -> dict[str, dict[str, Tensor]]:
    """Load a run's checkpoint and verify it against the digest in the run's record."""
    path = records.folder(runs, run.id) / "checkpoint.pt"
    if not path.exists():
        raise AnalysisError(f"{path}: no such file; an analysis needs the trained weights")
    try:
        return trained(path, _finished_record(runs, run.id))
    except CheckpointDamaged as damage:
        raise AnalysisError(str(damage)) from None
