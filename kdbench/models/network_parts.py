"""Parts of networks that methods use: the student's live classifier, the teacher's batch norms."""

import copy
from collections.abc import Callable, Sequence
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn


class WithNorms(Protocol):
    """A network that knows the batch norms of its ``preacts``."""

    def norms(self) -> Sequence[nn.BatchNorm2d | None]:
        """Return a batch norm or None for each of the ``preacts``."""


def live_head(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return a network's classifier as a function, [..., D] to [..., K].

    A function is no module: a method that keeps it does not register the classifier, whose weights
    would then be trained, decayed and saved twice. It computes in the type of its argument, with
    the weights that the network has at the time of the call; gradients reach them.

    Args:
        network: has a linear layer ``head``.
    """

    def head(x: Tensor) -> Tensor:
        layer = network.head
        assert isinstance(layer, nn.Linear)
        bias = None if layer.bias is None else layer.bias.to(x.dtype)
        return F.linear(x, layer.weight.to(x.dtype), bias)

    return head


def frozen_norms(network: WithNorms) -> tuple[nn.BatchNorm2d | None, ...]:
    """Return frozen copies of the batch norms that make a network's ``preacts``."""
    return tuple(
        None if bn is None else copy.deepcopy(bn).requires_grad_(False) for bn in network.norms()
    )
