"""Running sums of an epoch, kept on the device and read once, at its end.

The tensors stay the same in all epochs and change in place, since a captured step adds to them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class EpochSums:
    """Losses and correct predictions of an epoch so far.

    Attributes:
        loss: sum over steps, float64.
        correct: number of correct predictions, int64.
        last_finite: the last finite loss.
        broken: whether any loss was not finite, bool.
    """

    def __init__(self, device: torch.device) -> None:
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self.last_finite = torch.zeros((), device=device)
        self.broken = torch.zeros((), dtype=torch.bool, device=device)

    def add(self, loss: Tensor, correct: Tensor) -> None:
        """Add a step: its loss and its number of correct predictions, both scalars."""
        value = loss.float()
        finite = torch.isfinite(value)
        self.broken |= ~finite
        self.last_finite.copy_(torch.where(finite, value, self.last_finite))
        self.loss += value
        self.correct += correct

    def watch(self, loss: Tensor) -> None:
        """Note whether another loss of the step, which is not summed, is finite."""
        self.broken |= ~torch.isfinite(loss)

    def state(self) -> list[Tensor]:
        """Return the sums for a checkpoint."""
        return [self.loss, self.correct, self.last_finite, self.broken]

    def load(self, state: Sequence[Tensor]) -> None:
        """Restore the sums from a checkpoint."""
        for own, saved in zip(self.state(), state, strict=True):
            own.copy_(saved)

    def zero(self) -> None:
        """Begin the next epoch."""
        for own in self.state():
            own.zero_()
