"""Differences of two trainings, and whether rounding explains them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .ours import Trajectory

FLOOR = 1e-9
"""Differences up to here need no explanation."""
FACTOR = 1000.0
"""Differences up to here, in units of the authors' own sensitivity, are rounding."""
CHAOTIC = 1e-6
"""A training is too sensitive to be compared if rounding alone changes it by more."""
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
PARTS = ("weights", "statistics", "modules", "losses")


@dataclass(frozen=True)
class Differences:
    """Largest differences of two trainings.

    A difference is divided by the largest entry of its tensor, if that is above 1, as is that of a
    loss by the loss.

    Attributes:
        weights: of the student.
        statistics: of the student's batch norms.
        modules: of the tensors of the method.
        losses: of all steps.
    """

    weights: float
    statistics: float
    modules: float
    losses: float

    @property
    def largest(self) -> float:
        """The largest of all; NaN if one is."""
        return worst(vars(self))


def differences(a: Trajectory, b: Trajectory) -> Differences:
    """Return the differences of two trainings of the same tensors.

    Raises:
        ValueError: the trainings differ in their tensors or in the number of steps.
    """
    if len(a.losses) != len(b.losses):
        raise ValueError(f"{len(a.losses)} steps here, {len(b.losses)} there")
    student = each(a.student, b.student)
    running = {k: x for k, x in student.items() if k.endswith(STATISTICS)}
    return Differences(
        weights=worst({k: x for k, x in student.items() if k not in running}),
        statistics=worst(running),
        modules=worst(each(a.modules, b.modules)),
        losses=worst(each(_numbered(a.losses), _numbered(b.losses))),
    )


def _numbered(losses: Sequence[float]) -> dict[str, Tensor]:
    return {str(i): torch.tensor(x, dtype=torch.float64) for i, x in enumerate(losses)}


def each(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the difference of every tensor.

    Raises:
        ValueError: one side has a tensor that the other has not.
    """
    if only := sorted(a.keys() ^ b.keys()):
        raise ValueError(f"only one side has {only[0]}")
    return {name: gap(x, b[name]) for name, x in a.items()}


def gap(a: Tensor, b: Tensor) -> float:
    """Return the largest difference of two tensors, divided by the largest entry if above 1."""
    a, b = a.double(), b.double()
    return float((a - b).abs().max() / b.abs().max().clamp_min(1)) if a.numel() else 0.0


def worst(gaps: Mapping[str, float]) -> float:
    """Return the largest difference, 0 without any, NaN if one is."""
    return float(torch.tensor([0.0, *gaps.values()], dtype=torch.float64).max())


def verdict(difference: float, sensitivity: float) -> str:
    """Return whether a difference is rounding.

    Returns:
        "equal", "rounding" (up to ``FACTOR`` times the sensitivity), "DIFFERS", or "undecided" if
        the sensitivity is so large that a mistake would not be noticed.
    """
    if difference <= FLOOR:
        return "equal"
    if sensitivity > CHAOTIC:
        return "undecided"
    return "rounding" if difference <= FACTOR * sensitivity else "DIFFERS"
