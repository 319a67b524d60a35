"""Losses of networks that learn together, for methods with ``Method.group``.

P is the number of networks. Tensors of all networks are stacked, so that a loss takes as many
operations for four networks as for two.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Features, Incompatible, Setup
from kdbench.tensors import upcast


def check_peers(who: str, setup: Setup, size: int) -> None:
    """Check that the student consists of ``size`` networks.

    Args:
        who: the method's name, for the message.

    Raises:
        Incompatible: it does not.
    """
    found = len(setup.student.peers)
    if found != size:
        raise Incompatible(f"{who} needs {size} networks that learn together, not {found or 1}")


def peer_logits(s: Features) -> Tensor:
    """Return the logits of all networks, float32 or wider, [P, B, K]; the deployed one's first."""
    return torch.stack([upcast(peer.logits) for peer in s.peers])


def cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the sum over networks of their cross-entropies, a scalar.

    Args:
        logits: [P, B, K].
        labels: [B].
    """
    n = len(logits)
    return n * F.cross_entropy(logits.flatten(0, 1), labels.repeat(n))


def mean_of_others(logits: Tensor) -> Tensor:
    """Return for each network the mean of the other networks' logits, [P, B, K] -> [P, B, K]."""
    return (logits.sum(0) - logits) / (len(logits) - 1)


def divergences(logits: Tensor, targets: Tensor, temperature: float, eps: float = 1e-7) -> Tensor:
    """Return the sum of ``T^2 / B * sum_k q (log q - log p)`` over networks, a scalar.

    ``p`` are the softened predictions and ``q`` the softened targets, to which ``eps`` is added
    without normalising again. The targets get gradients, too; detach them to treat them as
    constants.

    Args:
        logits: [..., B, K].
        targets: logits, of the same shape.
        temperature: T.
        eps: a small number.

    Source: the code of OKDDip (arXiv:1912.00350) and of ONE (arXiv:1806.04606).
    """
    log_p = F.log_softmax(logits / temperature, dim=-1)
    q = F.softmax(targets / temperature, dim=-1) + eps
    return temperature**2 * (q * (q.log() - log_p)).sum() / logits.shape[-2]


def soft_cross_entropies(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Return the sum of ``-T^2 / B * sum_k q log p`` over networks; see ``divergences``."""
    log_p = F.log_softmax(logits / temperature, dim=-1)
    q = F.softmax(targets / temperature, dim=-1)
    return -(temperature**2) * (q * log_p).sum() / logits.shape[-2]
