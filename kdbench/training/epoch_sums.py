"""What an epoch adds up on the device, to be read once, when it ends."""

from collections.abc import Sequence

import torch
from torch import Tensor


class EpochSums:
    """Losses and hits of an epoch so far.

    Attributes:
        loss: sum over steps, float64. hits: right predictions, int64.
        last_finite: the last loss that was finite. broken: whether one was not, bool.
    """

    def __init__(self, device: torch.device) -> None:
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self.last_finite = torch.zeros((), device=device)
        self.broken = torch.zeros((), dtype=torch.bool, device=device)

    def add(self, loss: Tensor, correct: Tensor) -> None:
        """Count a step: its loss and the number of its hits, scalars."""
        value = loss.float()
        finite = torch.isfinite(value)
        self.broken |= ~finite
        self.last_finite = torch.where(finite, value, self.last_finite)
        self.loss += value
        self.correct += correct

    def state(self) -> list[Tensor]:
        """For a checkpoint."""
        return [self.loss, self.correct, self.last_finite, self.broken]

    def load(self, state: Sequence[Tensor]) -> None:
        """Go on from a checkpoint."""
        device = self.loss.device
        self.loss, self.correct, self.last_finite, self.broken = (x.to(device) for x in state)
