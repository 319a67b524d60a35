"""Networks that learn together, as one student (``Method.group``)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.method import Features, Group, Incompatible


class Peers(nn.Module):
    """Networks of one architecture that get the same images; the first is deployed.

    Attributes:
        networks: the first is whole; the others lack the shared stages, which they take from it.
        shared: number of stages that all have in common, 0: the stem only; None: nothing.
        rescale: divide the gradient that enters the shared stages by the number of networks.
    """

    def __init__(self, networks: Sequence[nn.Module], group: Group) -> None:
        """Join networks, which become parts of this one.

        Args:
            networks: whole networks of one architecture. Those after the first lose their shared
                stages. With shared stages they need ``num_stages``, ``upto``, ``onward`` and
                ``without``, as ``kdbench.models.network.Network`` has them.
            group: what they share.

        Raises:
            Incompatible: the group shares more stages than a network has.
            ValueError: these are not ``group.size`` networks, or fewer than 2.
        """
        super().__init__()
        if len(networks) != group.size or group.size < 2:
            raise ValueError(f"a group of {group.size} networks: expected at least 2")
        others: Sequence[Any] = networks[1:]
        self.shared = shared_stages(networks[0], group)
        if self.shared is not None:
            for network in others:
                network.without(self.shared)
        self.rescale = group.rescale
        self.networks = nn.ModuleList([networks[0], *others])

    def forward(self, images: Tensor) -> Features:
        """Map images, [B, C, H, W], to the first network's ``Features``, with all in ``peers``."""
        if self.shared is None:
            features = tuple(network(images) for network in self.networks)
        else:
            first: Any = self.networks[0]
            lower = first.upto(images, self.shared)
            if self.rescale:
                size = len(self.networks)
                lower = lower.map(lambda x: _DividedGradient.apply(x, size))
            parts: Sequence[Any] = [*self.networks]
            features = tuple(network.onward(lower) for network in parts)
        return replace(features[0], peers=features)


def shared_stages(network: nn.Module, group: Group) -> int | None:
    """Return how many stages of a network its group shares, counted from the first; None: nothing.

    Raises:
        Incompatible: it has fewer stages.
    """
    if group.shared is None:
        return None
    stages: Any = getattr(network, "num_stages", 0)
    shared: int = group.shared + stages if group.shared < 0 else group.shared
    if not 0 <= shared <= stages:
        raise Incompatible(
            f"peers that share stages: {group.shared}: the network has {stages}; "
            f"expected -{stages} to {stages}"
        )
    return shared


def networks(student: nn.Module) -> Sequence[nn.Module]:
    """Return the networks of a student, the deployed one first; one without a group."""
    return [*student.networks] if isinstance(student, Peers) else [student]


class _DividedGradient(torch.autograd.Function):
    """The identity, whose backward pass divides the gradient.

    Song & Chai, NeurIPS 2018 (arXiv:1805.11761), section 3.3: backpropagation rescaling.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int) -> Tensor:
        ctx.size = size
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad / ctx.size, None
