"""ONE: on-the-fly native ensemble (Lan et al., NeurIPS 2018, arXiv:1806.04606).

Branches on shared low stages learn from a gated ensemble of their logits. The gate is
``g = softmax(ReLU(BN(W mean_hw(x) + b)))``, x the output of the shared stages, a weight per branch
and sample; ``z_e = sum_i g_i z_i``. The loss is ``sum_i CE(z_i) + CE(z_e) + w sum_i KL_3(z_e ||
z_i)``; w ramps up over 80 epochs as in the authors' code.

``authors``: z_e is a constant in the divergence, and there are three branches. ``okddip_repo``:
OKDDip's code, where z_e is not a constant, with four branches; its tables report the branches' mean
accuracy. The deployed network is the first branch; ``ensemble`` is the authors' ONE-E.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench import schedules
from kdbench.method import Batch, Features, Group, Incompatible, Method, Objective, Setup
from kdbench.peer_losses import check_peers, cross_entropies, divergences, peer_logits
from kdbench.tensors import exact, one_of, upcast


class ONE(Method):
    """Match every branch with a gated ensemble of all branches.

    The term holds the cross-entropies of the ensemble and of all branches but the first.

    Args:
        variant: "authors" or "okddip_repo".
        peers: number of branches; None: as published, 3 for ``authors`` and 4 for ``okddip_repo``.
        tau: temperature.
        rampup: length of the ramp-up, in epochs, or as a share of the training if at most 1.
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
        tau: float = 3.0,
        rampup: float = 80.0,
    ) -> None:
        super().__init__(setup)
        self.variant = one_of("variant", variant, "authors", "okddip_repo")
        self.tau, self.rampup = tau, rampup
        size = self.group(variant=variant, peers=peers).size
        check_peers("ONE", setup, size)
        if setup.batch_size < 2:
            raise Incompatible("ONE needs a batch of 2 or more: its gate has a batch norm")
        self.gate = nn.Linear(_gate_input(setup.student).shape[1], size)
        self.norm = nn.BatchNorm1d(size)

    @classmethod
    def group(cls, *, variant: str = "authors", peers: int | None = None, **hyper: Any) -> Group:
        published = 3 if variant == "authors" else 4
        return Group(published if peers is None else peers, shared=-1)

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        logits = peer_logits(s)
        ensemble = self.ensemble(s, logits)
        target = ensemble.detach() if self.variant == "authors" else ensemble
        weight = schedules.rampup(batch.epoch, self.rampup, batch.epochs)
        labelled = cross_entropies(logits[1:], batch.labels)
        labelled = labelled + F.cross_entropy(ensemble, batch.labels)
        return labelled + weight * divergences(logits, target.expand_as(logits), self.tau)

    def ensemble(self, s: Features, logits: Tensor) -> Tensor:
        """Return the gated sum of the branches' logits, [P, B, K] -> [B, K]."""
        pooled = upcast(_gate_input(s)).mean((2, 3))
        with exact(pooled):
            weights = F.softmax(self.norm(self.gate(pooled)).relu(), dim=1)  # [B, P]
        return (weights.T[:, :, None] * logits).sum(0)

    def answers(self, s: Features) -> dict[str, Tensor]:
        logits = peer_logits(s)
        return {"mean": logits, "ensemble": self.ensemble(s, logits)}


def _gate_input(s: Features) -> Tensor:
    """Return the output of the shared stages: all but the last."""
    return s.stages[-2] if len(s.stages) > 1 else s.stem
