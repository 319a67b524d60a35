"""OKDDip: online distillation with diverse peers (Chen et al., AAAI 2020, arXiv:1912.00350).

Auxiliary peers learn from attention-weighted means of their logits, a leader from the plain mean.
Peer a has embedding h_a and logits z_a. ``L = W_q h`` and ``E = W_k h`` with matrices that all
peers share; ``alpha_ab = softmax_b(L_a . E_b)`` per sample, over all auxiliary peers. The target of
peer a is ``sum_b alpha_ab z_b``, the leader's ``mean_b z_b``. The loss is the sum of all
cross-entropies and ``w sum KL_3``, where w ramps up over 80 epochs.

Targets are not constants: only through them do W_q and W_k learn. The deployed network is the
leader. OKDDip-E (``ensemble``) has no leader; all networks are auxiliary, and the ensemble answers.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench import schedules
from kdbench.method import Batch, Features, Group, Method, Objective, Setup
from kdbench.peer_losses import (
    check_peers,
    cross_entropies,
    divergences,
    peer_logits,
    soft_cross_entropies,
)
from kdbench.tensors import exact, one_of, upcast


class OKDDip(Method):
    """Let auxiliary peers with different targets teach each other, and a leader.

    The term holds the cross-entropies of all networks but the deployed one.

    Args:
        peers: number of networks, the leader included; at least 2 of them are auxiliary.
        form: "branch": the networks share all stages but the last; "network": nothing.
        tau: temperature.
        factor: width of the embedding over the width of the projections.
        rampup: length of the ramp-up, in epochs, or as a share of the training if at most 1.
        detach: "none", or "logits": targets pass gradients to the attention only.
        group_loss: "KL", or "CE" with the same gradients to the peer that learns.
        ensemble: OKDDip-E, without a leader.
    """

    family = "online"
    needs_teacher = False
    brings_peers = True
    objective = Objective(gamma=1.0, alpha=0.0)

    def __init__(
        self,
        setup: Setup,
        *,
        peers: int = 4,
        form: str = "branch",
        tau: float = 3.0,
        factor: int = 8,
        rampup: float = 80.0,
        detach: str = "none",
        group_loss: str = "KL",
        ensemble: bool = False,
    ) -> None:
        super().__init__(setup)
        self.detach = one_of("detach", detach, "none", "logits")
        self.group_loss = one_of("group_loss", group_loss, "KL", "CE")
        self.tau, self.rampup = tau, rampup
        self.first = 0 if ensemble else 1  # of the auxiliary peers
        if factor < 1:
            raise ValueError(f"factor is {factor}, expected at least 1")
        check_peers("OKDDip", setup, self.group(peers=peers, form=form, ensemble=ensemble).size)
        width = setup.student.embedding.shape[1]
        self.query = nn.Linear(width, max(1, width // factor), bias=False)
        self.key = nn.Linear(width, max(1, width // factor), bias=False)

    @classmethod
    def group(
        cls, *, peers: int = 4, form: str = "branch", ensemble: bool = False, **hyper: Any
    ) -> Group:
        one_of("form", form, "branch", "network")
        least = 2 if ensemble else 3
        if peers < least:
            raise ValueError(f"peers is {peers}, expected at least {least}")
        return Group(peers, shared=-1 if form == "branch" else None)

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        logits = peer_logits(s)
        weight = schedules.rampup(batch.epoch, self.rampup, batch.epochs)
        form = divergences if self.group_loss == "KL" else soft_cross_entropies
        group = form(logits, self.targets(s, logits), self.tau)
        return cross_entropies(logits[1:], batch.labels) + weight * group

    def targets(self, s: Features, logits: Tensor) -> Tensor:
        """Return the logits that each network learns from, [P, B, K]; a leader's first."""
        sources = logits[self.first :]
        if self.detach == "logits":
            sources = sources.detach()
        weights = self.attention(s)
        with exact(sources):
            mixed = (weights @ sources.transpose(0, 1)).transpose(0, 1)
        return torch.cat([sources.mean(0, keepdim=True), mixed]) if self.first else mixed

    def attention(self, s: Features) -> Tensor:
        """Return how much each auxiliary peer learns from each, [B, A, A]; rows sum to 1."""
        embeddings = [upcast(peer.embedding) for peer in s.peers[self.first :]]
        h = torch.stack(embeddings, dim=1)  # [B, A, D]
        with exact(h):
            return F.softmax(self.query(h) @ self.key(h).mT, dim=2)

    def answers(self, s: Features) -> dict[str, Tensor]:
        auxiliary = peer_logits(s)[self.first :]
        return {"mean": auxiliary, "ensemble": auxiliary.mean(0)}

    def trace(self, s: Features, t: Features) -> dict[str, Tensor]:
        """Return the attention, a mean over samples, [A, A], and the diversity of the peers.

        The diversity is the mean distance of two auxiliary peers' predicted probabilities, over
        pairs and samples. The authors' code divides by three, the number of pairs of three peers.
        """
        p = F.softmax(peer_logits(s)[self.first :], dim=2)
        a, b = torch.triu_indices(len(p), len(p), offset=1, device=p.device)
        distance = F.pairwise_distance(p[a], p[b])
        return {"weights": self.attention(s).mean(0), "diversity": distance.mean()}
