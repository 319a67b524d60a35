"""An epoch's sums: losses that are not finite, and checkpoints."""

import math

import pytest
import torch

from kdbench.training.epoch_sums import EpochSums

CPU = torch.device("cpu")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_last_finite_loss_is_kept(bad: float) -> None:
    sums = EpochSums(CPU)
    for loss in (2.0, 1.5, bad, bad):
        sums.add(torch.tensor(loss), torch.tensor(3))
    assert bool(sums.broken)
    assert float(sums.last_finite) == 1.5
    assert int(sums.correct) == 12


def test_checkpoint_keeps_all_sums() -> None:
    sums, other = EpochSums(CPU), EpochSums(CPU)
    sums.add(torch.tensor(0.1), torch.tensor(7))
    other.load([x.clone() for x in sums.state()])
    for each in (sums, other):
        each.add(torch.tensor(0.2), torch.tensor(1))
    assert all(map(torch.equal, sums.state(), other.state()))
    assert float(other.loss) == sum(torch.tensor([0.1, 0.2]).tolist())
    assert not bool(other.broken)
