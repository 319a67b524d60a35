"""Teachers: networks trained by other runs, frozen and prepared for fast inference."""

import copy
import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from kdbench.errors import UserError
from kdbench.grid.run import Teacher
from kdbench.method import Features
from kdbench.models import zoo
from kdbench.models.fold_batch_norm import folded
from kdbench.models.network import Network
from kdbench.runs import records
from kdbench.training.checkpoint import CheckpointDamaged, OtherWeights, trained

log = logging.getLogger(__name__)


class TeacherError(UserError):
    """The teacher cannot be used; the message is one line."""


@dataclass(frozen=True)
class LoadedTeacher:
    """A frozen teacher.

    Attributes:
        network: as trained, on the CPU.
        fast: with folded batch norms, on the device.
        acc: test accuracy in percent.
        weights: sha256.
    """

    network: Network
    fast: Network
    acc: float | None
    weights: str

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Features:
        """Return the teacher's features of a batch, without gradients."""
        features: Features = self.fast(images)
        return features

    def head(self) -> nn.Linear:
        """Return a frozen copy of the classifier."""
        return copy.deepcopy(self.network.head).requires_grad_(False)


def load(
    runs: Path, teacher: Teacher, *, num_classes: int, in_channels: int, device: torch.device
) -> LoadedTeacher:
    """Load a teacher from the run that trained it.

    Raises:
        TeacherError: the run has not finished, or its checkpoint is missing, damaged or does not
            match its record.
    """
    record = records.read(runs, teacher.run)
    if record is None or record.status != "done" or record.result is None:
        state = record.status if record else "not trained yet"
        raise TeacherError(f"teacher {teacher.arch} (run {teacher.run}): {state}")
    path = records.folder(runs, teacher.run) / "checkpoint.pt"
    try:
        state = trained(path, record)["model"]
    except OtherWeights as error:
        way_out = f"bring back the checkpoint of that record, or {_again(runs, teacher)}"
        raise TeacherError(f"{error}; {way_out}") from None
    except CheckpointDamaged as damage:
        raise TeacherError(f"{damage}; {_again(runs, teacher)}") from None
    network = zoo.create(teacher.arch, num_classes=num_classes, in_channels=in_channels)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise TeacherError(f"{path}: does not fit {teacher.arch}: {reason}") from None
    network.eval().requires_grad_(False)
    fast = folded(network).to(device).to(memory_format=torch.channels_last)
    return LoadedTeacher(network, fast, record.result.test_acc, record.result.weights)


def _again(runs: Path, teacher: Teacher) -> str:
    """Tell how to get a teacher's checkpoint again."""
    try:
        records.read_run(runs, teacher.run)
    except records.RecordError:  # it was not trained by kdbench
        return "import the teacher again with `kdbench teacher import`"
    return "train the teacher again: `kdbench retry` with this grid, then `kdbench run`"
