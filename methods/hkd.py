"""Heterogeneous knowledge distillation (Passalis et al., CVPR 2020, arXiv:2005.00727).

``authors`` is the paper's schedule: the weight of all stages is large at first and decays.
``semckd_repo`` reproduces the SemCKD authors' numbers: a constant weight, on the first stage only.
Both expect an auxiliary teacher of the student's depth, trained by PKT from the real teacher.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from kdbench.method import Batch, Features, Method, Setup
from kdbench.tensors import (
    affinities,
    batched,
    centred_gram,
    exact,
    gaps,
    gram,
    one_of,
    pairs,
    rows,
    together,
    upcast,
)


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
            if not self.authors:
                stages = divergences(matched, self.eps)
                return self.stage_weight * stages[0] + stages[1:].sum()
            terms = divergences([*matched, (s.embedding, t.embedding)], self.eps)
            weight = self.stage_weight * self.decay ** (batch.epoch - 1)
            return terms[-1] + weight * terms[:-1].sum()


def divergences(matched: Sequence[tuple[Tensor, Tensor]], eps: float) -> Tensor:
    """Return the Jeffreys divergence of neighbour probabilities, summed over both kernels.

    Args:
        matched: n layers of student and teacher, [B, ...] each.
        eps: added to lengths and squared distances.

    Returns:
        A divergence for each layer, [n].
    """
    a, b = ([rows(upcast(x)) for x in side] for side in zip(*matched, strict=True))
    cosine = partial(cosine_neighbours, eps=eps)
    cosine_s, cosine_t = together(cosine, [gram(x) for x in a], [gram(x) for x in b])
    near = partial(student_t_neighbours, eps=eps)
    near_s, near_t = together(near, [centred_gram(x) for x in a], [centred_gram(x) for x in b])
    both = batched(jeffreys, [*cosine_s, *near_s], [*cosine_t, *near_t])
    return both.view(2, -1).sum(0)


def cosine_neighbours(gram: Tensor, eps: float) -> Tensor:
    """Return the probabilities of neighbours by cosine from inner products, [..., B, B]."""
    return probabilities(affinities(gram, eps))


def student_t_neighbours(gram: Tensor, eps: float) -> Tensor:
    """Return the probabilities by ``1 / (1 + distance)`` from centred inner products, [..., B, B].

    No distance is below ``sqrt(eps)``. The diagonal has exactly this value; in float32, differences
    of inner products alone would be far off.
    """
    square = gaps(gram, torch.finfo(gram.dtype).eps)
    return probabilities(1 / (1 + (square.clamp_min(0) + eps).sqrt()))


def probabilities(close: Tensor) -> Tensor:
    """Scale the rows of affinities, [..., B, B], to a sum of 1.

    Affinities are clamped to at least 1e-7, because that of exactly antipodal samples is 0.
    """
    close = close.clamp_min(1e-7)
    return close / close.sum(-1, keepdim=True)


def jeffreys(p_s: Tensor, p_t: Tensor) -> Tensor:
    """Return the mean of ``(P_t - P_s)(log P_t - log P_s)``, [..., B, B] x 2 -> [...]."""
    return ((p_t - p_s) * (p_t.log() - p_s.log())).mean((-2, -1))
