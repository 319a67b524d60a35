"""The upper stages of a network as a function of a map (``Setup.teacher_from``, ``student_from``).

Its batch norms use the statistics of the batch, because the map may be distributed otherwise than
the network's own. They are not updated.
"""

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from kdbench.features import Features
from kdbench.models.network import Lower, Network

UpperPart = Callable[[int, Tensor], Features]
"""``part(k, x)`` runs the stages after the first ``k`` on x, [B, C_k, H_k, W_k]."""


def of_frozen(network: Network | Callable[[], Network]) -> UpperPart:
    """Return the upper part of a frozen copy of a network, on the device of the map.

    The copy is made when it is first used, and stays on that device.

    Args:
        network: the network, or a function that makes one on the right device when it is needed.
    """
    copies: dict[torch.device, Network] = {}

    def run(k: int, x: Tensor) -> Features:
        if x.device not in copies:
            frozen = _own(network, shared=False).requires_grad_(False)
            if isinstance(network, Network):  # torch cannot convert fake tensors
                frozen.to(x.device).to(memory_format=torch.channels_last)
            copies[x.device] = with_batch_statistics(frozen)
        return _run(copies[x.device], k, x)

    return run


def of_live(network: Network | Callable[[], Network]) -> UpperPart:
    """Return the upper part of a network in training; its parameters get gradients.

    Args:
        network: as for ``of_frozen``.
    """
    twins: list[Network] = []

    def run(k: int, x: Tensor) -> Features:
        if not twins:
            twins.append(with_batch_statistics(_own(network, shared=True)))
        return _run(twins[0], k, x)

    return run


def with_batch_statistics(network: Network) -> Network:
    """Give a network batch norms without running statistics, with the same parameters."""
    network.eval()
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            plain = nn.BatchNorm2d(
                module.num_features, module.eps, affine=False, track_running_stats=False
            )
            plain.weight, plain.bias = module.weight, module.bias
            parent, _, leaf = name.rpartition(".")
            setattr(network.get_submodule(parent), leaf, plain)
    return network


def _own(network: Network | Callable[[], Network], *, shared: bool) -> Network:
    """Return a copy of a network, with the same parameters if ``shared``, or a new network."""
    if not isinstance(network, Network):
        return network()  # not copied: torch cannot copy fake tensors
    return copy.deepcopy(network, {id(p): p for p in network.parameters()} if shared else {})


def _run(network: Network, k: int, x: Tensor) -> Features:
    """Run the stages after the first ``k``; earlier features are ``x``, which means nothing."""
    if not 0 <= k <= network.num_stages:
        name, last = type(network).__name__, network.num_stages
        raise ValueError(f"stage {k}: {name} can be cut at 0 to {last}")
    # A family knows k - 1, k or k + 1 pre-activations there (``Lower``): what is too much is cut.
    above = network.onward(Lower(x, (x,) * k, (x,) * (k + 1)))
    return replace(above, preacts=above.preacts[-network.num_stages :])
