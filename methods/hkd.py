"""Heterogeneous knowledge distillation (Passalis et al., CVPR 2020, arXiv:2005.00727).

``authors`` is the paper's schedule: all stages count much at first, less and less
later. ``semckd_repo`` reproduces the SemCKD authors' numbers, where the weight stays on the first
stage alone. Both expect a teacher of the student's depth that PKT trained from the real one.
"""

import torch
from torch import Tensor

from kdbench.method import Batch, Features, Method, Setup
from kdbench.tensors import affinity, exact, one_of, pairs, rows, squared_gaps, upcast


class HKD(Method):
    """Match neighbour probabilities layer by layer, under a cosine and a Student-t kernel.

    Args:
        variant: "authors" or "semckd_repo".
        stage_weight: initial weight of the stages (of the first one in ``semckd_repo``).
        decay: of that weight, per epoch; no effect in ``semckd_repo``.
        eps: added to lengths and squared distances.
    """

    family = "relation"

    def __init__(
        self,
        setup: Setup,
        *,
        variant: str = "authors",
        stage_weight: float = 100.0,
        decay: float = 0.7,
        eps: float = 1e-6,
    ) -> None:
        super().__init__(setup)
        self.authors = one_of("variant", variant, "authors", "semckd_repo") == "authors"
        self.stage_weight, self.decay, self.eps = stage_weight, decay, eps

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        with exact(s.logits):
            met = pairs(s.stages, t.stages)
            stages = torch.stack([divergence(a, b, self.eps) for a, b in met])
            if not self.authors:
                return self.stage_weight * stages[0] + stages[1:].sum()
            weight = self.stage_weight * self.decay ** (batch.epoch - 1)
            return divergence(s.embedding, t.embedding, self.eps) + weight * stages.sum()


def divergence(a: Tensor, b: Tensor, eps: float) -> Tensor:
    """Jeffreys divergence of neighbour probabilities, mean over pairs, both kernels; a scalar."""
    a, b = rows(upcast(a)), rows(upcast(b))
    return jeffreys(affinity(a, eps), affinity(b, eps)) + jeffreys(
        student_t(a, eps), student_t(b, eps)
    )


def student_t(x: Tensor, eps: float) -> Tensor:
    """``1 / (1 + distance)``, [B, D] -> [B, B].

    A distance is never below ``sqrt(eps)``; the diagonal is exactly that, which in float32 the
    difference of inner products alone would miss by far.
    """
    return 1 / (1 + (squared_gaps(x).clamp_min(0) + eps).sqrt())


def jeffreys(a: Tensor, b: Tensor) -> Tensor:
    """Mean of ``(P_t - P_s)(log P_t - log P_s)`` for affinities, [B, B], [B, B] -> scalar.

    Affinities are taken as at least 1e-7: exactly antipodal samples would have the logarithm of 0.
    """
    p_s, p_t = (x / x.sum(1, keepdim=True) for x in (a.clamp_min(1e-7), b.clamp_min(1e-7)))
    return ((p_t - p_s) * (p_t.log() - p_s.log())).mean()
