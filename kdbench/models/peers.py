"""Networks that learn together, as one student (``Method.group``)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from kdbench.method import Features, Group, Incompatible
from kdbench.models.network import Lower, Network


class Peers(nn.Module):
    """Networks of one architecture that get the same images; the first is deployed.

    Attributes:
        networks: the first is whole; the others lack the shared stages, which they take from it.
        shared: number of stages that all have in common, 0: the stem only; None: nothing.
        rescale: divide the gradient that enters the shared stages by the number of networks.
    """

    def __init__(self, networks: Sequence[Network], group: Group) -> None:
        """Join networks, which become parts of this one.

        Args:
            networks: whole networks of one architecture. Those after the first lose their shared
                stages.
            group: what they share.

        Raises:
            Incompatible: the group shares more stages than a network has.
            ValueError: these are not ``group.size`` networks, or fewer than 2.
        """
        super().__init__()
        if len(networks) != group.size or group.size < 2:
            raise ValueError(f"a group of {group.size} networks: expected at least 2")
        self.shared = shared_stages(networks[0], group)
        if self.shared is not None:
            for network in networks[1:]:
                network.without(self.shared)
        self.rescale = group.rescale
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> Features:
        """Map images, [B, C, H, W], to the first network's ``Features``, with all in ``peers``."""
        members = networks(self)
        if self.shared is None:
            features = tuple(network(images) for network in members)
        else:
            lower = members[0].upto(images, self.shared)
            lower = self._rescaled(lower) if self.rescale else lower
            features = tuple(network.onward(lower) for network in members)
        return replace(features[0], peers=features)

    def _rescaled(self, lower: Lower) -> Lower:
        """Return the same maps; gradients to them are divided by the number of networks."""

        def divided(x: Tensor) -> Tensor:
            y: Tensor = _DividedGradient.apply(x, len(self.networks))
            return y

        *before, last = (lower.stem, *lower.stages)
        maps = [*before, divided(last)]
        return Lower(maps[0], tuple(maps[1:]), lower.preacts)


def shared_stages(network: Network, group: Group) -> int | None:
    """Return how many stages of a network its group shares, counted from the first; None: nothing.

    Raises:
        Incompatible: it has fewer stages.
    """
    if group.shared is None:
        return None
    stages = network.num_stages
    shared = group.shared + stages if group.shared < 0 else group.shared
    if not 0 <= shared <= stages:
        raise Incompatible(
            f"peers that share stages: {group.shared}: the network has {stages}; "
            f"expected -{stages} to {stages}"
        )
    return shared


def networks(student: nn.Module) -> Sequence[Network]:
    """Return the networks of a student, the deployed one first; one without a group."""
    members = [*student.networks] if isinstance(student, Peers) else [student]
    return cast("Sequence[Network]", members)


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
