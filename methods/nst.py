"""Neuron selectivity transfer (Huang & Wang, 2017, arXiv:1707.01219), Eq. 4, polynomial kernel."""

import torch
from torch import Tensor

from kdbench.blocks import exact, pairs, same_size, unit_rows, upcast
from kdbench.method import Batch, Features, Method


class NST(Method):
    """Match the distribution of the channels' spatial patterns, by squared MMD with (x.y)^2."""

    beta = 50.0

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        with exact(s.logits):
            return torch.stack([discrepancy(a, b) for a, b in pairs(s.stages, t.stages)]).sum()


def discrepancy(a: Tensor, b: Tensor) -> Tensor:
    """Mean over the batch of the squared MMD, [B, C_s, H, W], [B, C_t, H, W] -> scalar.

    The kernel's feature map is the outer product of a pattern with itself, so the discrepancy is
    also the distance of two H*W x H*W moment matrices, which is cheaper where channels are many.
    """
    a, b = same_size(upcast(a), upcast(b))
    x, y = unit_rows(a.flatten(2)), unit_rows(b.flatten(2))  # [B, C, HW]
    if x.shape[2] <= min(x.shape[1], y.shape[1]):
        moment = x.mT @ x / x.shape[1] - y.mT @ y / y.shape[1]  # [B, HW, HW]
        return moment.square().sum((1, 2)).mean()
    inside = (y @ y.mT).square().mean() + (x @ x.mT).square().mean()
    return inside - 2 * (x @ y.mT).square().mean()
