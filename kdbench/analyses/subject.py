"""A trained run to look at: its network, methods, teacher and data, frozen and in eval mode."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kdbench import evaluation, models, records, teachers
from kdbench.batches import Normalise, eval_batches
from kdbench.build import build_methods, dry_run
from kdbench.checkpoint import CheckpointDamaged, trained
from kdbench.data import Data, load
from kdbench.errors import UserError
from kdbench.method import Features, Method, Setup
from kdbench.models.network import Network
from kdbench.records import Record
from kdbench.rng import generator
from kdbench.run import Run, Teacher
from kdbench.spec import Dataset
from kdbench.teachers import LoadedTeacher


class AnalysisError(UserError):
    """Runs that cannot be analysed so; one line."""


class Seen(NamedTuple):
    """A network on the whole test set: embeddings [N, D] and deployed logits [N, K]."""

    embedding: Tensor
    logits: Tensor


@dataclass(frozen=True, eq=False)
class Guide:
    """A teacher and the data it is asked about.

    Attributes:
        arch, run: of the teacher.
    """

    arch: str
    run: str
    loaded: LoadedTeacher
    data: Data

    @cached_property
    def test(self) -> Seen:
        """The teacher on the test set, on the CPU."""
        return _seen(self.loaded.fast, lambda f: f.logits, self.data)


@dataclass(frozen=True, eq=False)
class Subject:
    """One trained run.

    Attributes:
        label: what tells it from the other runs of an analysis.
        network: the student. methods: one per term of the run.
        guide: its teacher; None where neither it nor a run beside it has one.
    """

    run: Run
    label: str
    network: Network
    methods: Sequence[Method]
    guide: Guide | None
    data: Data

    def predict(self, f: Features) -> Tensor:
        """The deployed logits, [B, K]: a method's, where it predicts by itself."""
        for method in self.methods:
            if type(method).predict is not Method.predict:
                return method.predict(f)
        return f.logits

    @cached_property
    def test(self) -> Seen:
        """The student on the test set, on the CPU."""
        return _seen(self.network, self.predict, self.data)

    def taught(self) -> Guide:
        """The teacher.

        Raises:
            AnalysisError: there is none.
        """
        if self.guide is None:
            raise AnalysisError(
                f"run {self.run.id} ({self.run.method}) has no teacher to compare it with: give a "
                "run beside it that has one"
            )
        return self.guide

    def looks(self, split: str, most: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of the run's size: images [B, C, H, W] and their positions [B].

        In an order that is the same for all runs, as similarities within a batch depend on who is
        in it and a test set may lie sorted by class. The last, smaller batch is left out, as in
        training, unless it is the only one. Nothing is augmented.

        Args:
            split: "train" or "test".
            most: as many batches at most.
        """
        images = self.data.train_images if split == "train" else self.data.test_images
        order = torch.randperm(len(images), generator=generator(0, "analyse", split))
        size = self.run.training.batch_size
        count = max(1, len(images) // size)
        normalise = Normalise(self.data)
        for index in order.split(size)[: min(count, most or count)]:
            yield normalise(images[index.to(images.device)]), index

    @torch.no_grad()
    def both(self, images: Tensor) -> tuple[Features, Features]:
        """The student's and the teacher's features of a batch."""
        s: Features = self.network(images)
        return s, self.taught().loaded(images)


@torch.no_grad()
def _seen(network: nn.Module, predict: object, data: Data) -> Seen:
    embeddings, logits = [], []
    for images, _ in eval_batches(data.test_images, data.test_labels, data, evaluation.BATCH):
        f: Features = network(images)
        embeddings.append(f.embedding.float().cpu())
        logits.append(predict(f).float().cpu())  # type: ignore[operator]
    return Seen(torch.cat(embeddings), torch.cat(logits))


@dataclass
class Library:
    """Loads runs; what several of them share, data and teachers, is loaded once.

    Attributes:
        runs: folder of runs. root: folder of data sets. device: to compute on.
    """

    runs: Path
    root: Path
    device: torch.device
    _data: dict[Dataset, Data] = field(default_factory=dict)
    _guides: dict[tuple[Teacher, Dataset], Guide] = field(default_factory=dict)

    def subjects(self, ids: Sequence[str]) -> list[Subject]:
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

    def data(self, dataset: Dataset) -> Data:
        """A data set on the device."""
        if dataset not in self._data:
            self._data[dataset] = load(dataset, self.root, self.device)
        return self._data[dataset]

    def _subject(self, run: Run, label: str, teacher: Teacher | None) -> Subject:
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
        return Subject(run, label, network, own, guide, data)

    def _loaded(self, run: Run) -> tuple[Network, dict[str, dict[str, Tensor]]]:
        """A run's network, and all that its checkpoint holds."""
        data = self.data(run.dataset)
        state = _checkpoint(self.runs, run)
        network = models.create(
            run.student, num_classes=data.num_classes, in_channels=data.channels
        )
        _fill(run, network, state, "model")
        network.to(self.device).to(memory_format=torch.channels_last)
        return network, state

    def _guide(self, teacher: Teacher, dataset: Dataset) -> Guide:
        if (teacher, dataset) not in self._guides:
            data = self.data(dataset)
            loaded = teachers.load(
                self.runs,
                teacher,
                num_classes=data.num_classes,
                in_channels=data.channels,
                device=self.device,
            )
            self._guides[teacher, dataset] = Guide(teacher.arch, teacher.run, loaded, data)
        return self._guides[teacher, dataset]


def labels(runs: Sequence[Run]) -> list[str]:
    """What tells runs apart: the method, and of pair, data and seed what differs among them."""
    pairs = [f"{r.teacher.arch} → {r.student}" if r.teacher else r.student for r in runs]
    several = len({run.student for run in runs}), len({run.teacher for run in runs if run.teacher})
    parts = [[pair] if max(several) > 1 else [] for pair in pairs]
    for part, run in zip(parts, runs, strict=True):
        part.append(run.method)
    for values in ([run.dataset.title for run in runs], [f"seed {run.seed}" for run in runs]):
        if len(set(values)) > 1:
            for part, value in zip(parts, values, strict=True):
                part.append(value)
    told = [", ".join(part) for part in parts]
    called = {
        label: {r.id for r, x in zip(runs, told, strict=True) if x == label} for label in told
    }
    return [
        label if len(called[label]) == 1 else f"{label}, {run.id[:8]}"
        for label, run in zip(told, runs, strict=True)
    ]


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
