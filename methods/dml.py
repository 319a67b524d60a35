"""Deep mutual learning (Zhang et al., CVPR 2018, arXiv:1706.00384), Eqs. 3-8.

Networks of one architecture, with different initial weights, learn from the labels and from each
other's predictions. The variants, where ``p_i`` are the predictions of network i:

``authors``: network i gets ``mean_j KL(p_j || p_i)`` over its partners j, which are constants, at
temperature 1. As in the authors' code, ``KL`` is ``sum_k p_j log(1e-8 + p_j / (p_i + 1e-8))``.
``okddip_mean`` and ``okddip_pairwise``: two forms in OKDDip's code, with four networks, at
temperature 3. The target is the mean of the others' logits, or each of the others in turn, with a
mean of the divergences. Targets are not constants there.

All networks are updated at once on one batch. The authors update them one after the other, each on
a new batch, and smooth the labels by 0.1. OKDDip's tables report the networks' mean accuracy.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Features, Group, Method, Objective, Setup
from kdbench.peer_losses import (
    check_peers,
    cross_entropies,
    divergences,
    mean_of_others,
    peer_logits,
)
from kdbench.tensors import one_of

EPS = 1e-8
VARIANTS = ("authors", "okddip_mean", "okddip_pairwise")


class DML(Method):
    """Let networks match each other's predictions.

    The term holds the cross-entropies of all networks but the first, and all divergences.

    Args:
        variant: "authors", "okddip_mean" or "okddip_pairwise".
        peers: number of networks; None: as published, 2 for ``authors`` and 4 for the others.
        partners: ``authors``: "mean" of the divergences from all partners (the paper), or "sum"
            (the authors' code); equal for two networks.
        tau: temperature of ``okddip_mean`` and ``okddip_pairwise``.
    """

    family = "online"
    needs_teacher = False
    brings_peers = True
    objective = Objective(gamma=1.0, alpha=0.0)

    def __init__(
        self,
        setup: Setup,
        *,
        variant: str = "authors",
        peers: int | None = None,
        partners: str = "mean",
        tau: float = 3.0,
    ) -> None:
        super().__init__(setup)
        self.variant = one_of("variant", variant, *VARIANTS)
        self.partners = one_of("partners", partners, "mean", "sum")
        self.tau = tau
        check_peers("DML", setup, self.group(variant=variant, peers=peers).size)

    @classmethod
    def group(cls, *, variant: str = "authors", peers: int | None = None, **hyper: Any) -> Group:
        published = 2 if variant == "authors" else 4
        return Group(published if peers is None else peers)

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        logits = peer_logits(s)
        return cross_entropies(logits[1:], batch.labels) + self.mutual(logits)

    def mutual(self, logits: Tensor) -> Tensor:
        """Return the sum of all networks' divergences from their partners."""
        n, others = len(logits), len(logits) - 1
        if self.variant == "okddip_mean":
            return divergences(logits, mean_of_others(logits), self.tau)
        if self.variant == "okddip_pairwise":
            # Row i, entry j: the network that follows i in distance j + 1.
            partners = torch.stack([logits.roll(-shift, 0) for shift in range(1, n)], 1)
            return divergences(logits[:, None], partners, self.tau) / others
        p = F.softmax(logits, dim=-1)
        target = p.detach()
        total = torch.stack([_divergence(p, target.roll(-shift, 0)) for shift in range(1, n)]).sum()
        return total / others if self.partners == "mean" else total

    def answers(self, s: Features) -> dict[str, Tensor]:
        logits = peer_logits(s)
        return {"mean": logits, "ensemble": logits.mean(0)}


def _divergence(p: Tensor, target: Tensor) -> Tensor:
    """Return the sum over networks of the authors' KL divergence, [P, B, K] -> scalar."""
    return (target * (EPS + target / (p + EPS)).log()).sum() / p.shape[1]
