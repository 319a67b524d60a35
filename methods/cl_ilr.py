"""CL-ILR: collaborative learning (Song & Chai, NeurIPS 2018, arXiv:1805.11761).

Heads on shared low stages ("intermediate-level representation sharing") learn from the labels and
from each other. The gradient that enters the shared stages is divided by the number of heads, so
that these learn from the mean of the heads' losses.

``okddip_repo``: OKDDip's code. Head h gets ``KL_3(mean_{j != h} z_j || z_h)``; targets are not
constants, and the weight ramps up over 80 epochs. ``paper``: head h gets ``mix CE + (1 - mix) T^2
H``, where H is the cross-entropy with the softened mean of the other heads' logits, a constant;
there is no ramp. The authors published no code; ``paper`` has one fork, at the last stage, whereas
the paper's heads form a binary tree. OKDDip's tables report the heads' mean accuracy.
"""

from typing import Any

from torch import Tensor

from kdbench import schedules
from kdbench.method import Batch, Features, Group, Method, Objective, Setup
from kdbench.peer_losses import (
    check_peers,
    cross_entropies,
    divergences,
    mean_of_others,
    peer_logits,
    soft_cross_entropies,
)
from kdbench.tensors import one_of


class CLILR(Method):
    """Let heads on shared stages learn from the mean of the other heads.

    The term holds the cross-entropies of all heads but the first. In the variant ``paper``, it also
    subtracts ``1 - mix`` of the first head's, which the objective adds with weight 1.

    Args:
        variant: "okddip_repo" or "paper".
        peers: number of heads.
        tau: temperature; None: as published, 3 for ``okddip_repo`` and 2 for ``paper``.
        rampup: ``okddip_repo``: length of the ramp-up, in epochs, or as a share if at most 1.
        mix: ``paper``: weight of the labels, the paper's beta.
    """

    family = "online"
    needs_teacher = False
    brings_peers = True
    objective = Objective(gamma=1.0, alpha=0.0)

    def __init__(
        self,
        setup: Setup,
        *,
        variant: str = "okddip_repo",
        peers: int = 4,
        tau: float | None = None,
        rampup: float = 80.0,
        mix: float = 0.5,
    ) -> None:
        super().__init__(setup)
        self.variant = one_of("variant", variant, "okddip_repo", "paper")
        published = 2.0 if variant == "paper" else 3.0
        self.tau = published if tau is None else tau
        self.rampup, self.mix = rampup, mix
        check_peers("CL-ILR", setup, self.group(peers=peers).size)

    @classmethod
    def group(cls, *, peers: int = 4, **hyper: Any) -> Group:
        return Group(peers, shared=-1, rescale=True)

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        logits = peer_logits(s)
        target = mean_of_others(logits)
        others = cross_entropies(logits[1:], batch.labels)
        if self.variant == "okddip_repo":
            weight = schedules.rampup(batch.epoch, self.rampup, batch.epochs)
            return others + weight * divergences(logits, target, self.tau)
        first = cross_entropies(logits[:1], batch.labels)
        matched = soft_cross_entropies(logits, target.detach(), self.tau)
        return self.mix * others + (1 - self.mix) * (matched - first)

    def answers(self, s: Features) -> dict[str, Tensor]:
        logits = peer_logits(s)
        return {"mean": logits, "ensemble": logits.mean(0)}
