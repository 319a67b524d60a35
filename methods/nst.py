"""Neuron selectivity transfer (Huang & Wang, 2017, arXiv:1707.01219), Eq. 4, polynomial kernel."""

import torch
from torch import Tensor

from kdbench.method import Batch, Features, Method
from kdbench.tensors import (
    column_products,
    exact,
    pairs,
    row_products,
    same_size,
    unit_rows,
    upcast,
)


class NST(Method):
    """Match the distribution of the channels' spatial patterns: squared MMD, kernel (x.y)^2."""

    family = "feature map"
    beta = 50.0

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        with exact(s.logits):
            return torch.stack([discrepancy(a, b) for a, b in pairs(s.stages, t.stages)]).sum()


def discrepancy(a: Tensor, b: Tensor) -> Tensor:
    """Return the batch's mean squared MMD, [B, C_s, H, W], [B, C_t, H, W] -> scalar.

    The kernel's feature map is the outer product of a pattern with itself. So the discrepancy is
    also the distance of two H*W x H*W moment matrices, which is cheaper for many channels.
    """
    x, y = (maps.flatten(2).mT for maps in same_size(upcast(a), upcast(b)))  # [B, HW, C]
    if x.shape[1] <= min(x.shape[2], y.shape[2]):
        moment = second_moment(x) - second_moment(y)  # [B, HW, HW]
        return moment.square().sum((1, 2)).mean()
    # Scale the inner products, not the maps, to cosines: there are fewer of them for large maps.
    xx, yy = column_products(x, x), column_products(y, y)
    r_x, r_y = inverse_lengths(xx), inverse_lengths(yy)
    inside = mean_square(yy, r_y, r_y) + mean_square(xx, r_x, r_x)
    return inside - 2 * mean_square(column_products(x, y), r_x, r_y)


def second_moment(x: Tensor) -> Tensor:
    """Return the second moments of the patterns as unit vectors, [B, HW, C] -> [B, HW, HW]."""
    return row_products(unit_rows(x.mT).mT) / x.shape[2]


def mean_square(gram: Tensor, r_x: Tensor, r_y: Tensor) -> Tensor:
    """Return the mean squared cosine, given inner products [B, C, D] and inverse lengths."""
    return (gram * r_x[:, :, None] * r_y[:, None]).square().mean()


def inverse_lengths(gram: Tensor, eps: float = 1e-12) -> Tensor:
    """Return inverse lengths from inner products, [B, C, C] -> [B, C]; 0 for lengths below eps."""
    square = gram.diagonal(dim1=1, dim2=2)
    alive = square > eps**2
    return alive / torch.where(alive, square, torch.ones_like(square)).sqrt()
