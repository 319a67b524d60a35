"""Heterogeneous knowledge distillation (Passalis et al., CVPR 2020, arXiv:2005.00727).

``authors`` is the paper's schedule: the weight of all stages is large at first and decays.
``semckd_repo`` reproduces the SemCKD authors' numbers: a constant weight, on the first stage only.
Both expect an auxiliary teacher of the student's depth, trained by PKT from the real teacher.
"""

import torch
from torch import Tensor

from kdbench.method import Batch, Features, Method, Setup
from kdbench.tensors import affinity, exact, one_of, pairs, rows, squared_gaps, upcast


class HKD(Method):
    """Match neighbour probabilities layer by layer, with a cosine and a Student-t kernel.

    Args:
        variant: "authors" or "semckd_repo".
        stage_weight: initial weight of the stages (of the first stage in ``semckd_repo``).
        decay: factor of that weight per epoch; no effect in ``semckd_repo``.
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
            matched = pairs(s.stages, t.stages)
            stages = torch.stack([divergence(a, b, self.eps) for a, b in matched])
            if not self.authors:
                return self.stage_weight * stages[0] + stages[1:].sum()
            weight = self.stage_weight * self.decay ** (batch.epoch - 1)
            return divergence(s.embedding, t.embedding, self.eps) + weight * stages.sum()


def divergence(a: Tensor, b: Tensor, eps: float) -> Tensor:
    """Return the Jeffreys divergence of neighbour probabilities, summed over both kernels."""
    a, b = rows(upcast(a)), rows(upcast(b))
    return jeffreys(affinity(a, eps), affinity(b, eps)) + jeffreys(
        student_t(a, eps), student_t(b, eps)
    )


def student_t(x: Tensor, eps: float) -> Tensor:
    """Return ``1 / (1 + distance)``, [B, D] -> [B, B].

    No distance is below ``sqrt(eps)``. The diagonal has exactly this value; in float32, differences
    of inner products alone would be far off.
    """
    return 1 / (1 + (squared_gaps(x).clamp_min(0) + eps).sqrt())


def jeffreys(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean of ``(P_t - P_s)(log P_t - log P_s)`` of affinities, [B, B] x 2 -> scalar.

    Affinities are clamped to at least 1e-7, because that of exactly antipodal samples is 0.
    """
    p_s, p_t = (x / x.sum(1, keepdim=True) for x in (a.clamp_min(1e-7), b.clamp_min(1e-7)))
    return ((p_t - p_s) * (p_t.log() - p_s.log())).mean()
