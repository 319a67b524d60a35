"""Self-supervised distillation using SVD (Lee, Kim & Song, ECCV 2018, arXiv:1807.06819).

As the common benchmarks run it. Per sample and stage, the map as a matrix [H*W, C] has right
singular vectors in channel space. Each of the teacher's first ``k`` meets, of the student's first
``k + 3``, the one most parallel to it (sign made equal); both are weighted by the teacher's
singular values, as a unit vector. Between consecutive stages, v' and v,
``R_ij = exp(-(v_i - v'_j)^2 / 8)``; the term is ``sum (R_s - R_t)^2 / B`` over stages and channels.
The benchmarks leave the teacher's signs, on which R depends, to the SVD; here entries sum to >= 0.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from kdbench.method import Batch, Features, Incompatible, Method, Setup
from kdbench.tensors import column_products, exact, pairs, row_products, unit_rows, upcast


class KDSVD(Method):
    """Match how the maps' main directions in channel space go on from stage to stage.

    Args:
        k: singular vectors of a map.
    """

    family = "feature map"

    def __init__(self, setup: Setup, *, k: int = 1) -> None:
        super().__init__(setup)
        self.k = k
        s, t = ([x.shape[1] for x in f.stages] for f in (setup.student, setup.teacher))
        depth = min(len(s), len(t))
        if s[:depth] != t[:depth]:
            raise Incompatible(f"KDSVD needs equal channels: student {s}, teacher {t}")
        if depth < 2:
            raise Incompatible(f"KDSVD needs two stages or more: student {s}, teacher {t}")

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        with exact(s.logits):
            vectors = [aligned(a, b, self.k) for a, b in pairs(s.stages, t.stages)]
            gaps = [
                (relation(s1, s2) - relation(t1, t2)).square().sum()
                for (s1, t1), (s2, t2) in pairwise(vectors)
            ]
            return torch.stack(gaps).sum() / len(s.logits)


def relation(earlier: Tensor, later: Tensor) -> Tensor:
    """[B, C', k], [B, C, k] -> [B, C, C', k]."""
    return ((later[:, :, None] - earlier[:, None]).square() * -0.125).exp()


def aligned(a: Tensor, b: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The student's and the teacher's weighted vectors of a stage, [B, C, k] each."""
    _, v_s = right_vectors(upcast(a).flatten(2).mT, k + 3)
    with torch.no_grad():
        values, v_t = right_vectors(upcast(b).flatten(2).mT, k)
    k = min(v_s.shape[2], v_t.shape[2])
    values, v_t = unit_rows(values[:, :k]), v_t[:, :, :k]
    v_t = torch.where(v_t.sum(1, keepdim=True) < 0, -v_t, v_t)
    cosine = v_s.detach().mT @ v_t  # [B, k + 3, k]
    best = cosine.abs().argmax(1, keepdim=True)
    sign = torch.where(cosine.gather(1, best) < 0, -1.0, 1.0)
    v_s = v_s.gather(2, best.expand(-1, v_s.shape[1], -1)) * sign
    return v_s * values[:, None], v_t * values[:, None]


def right_vectors(x: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """First singular values, [B, n], and right singular vectors, [B, C, n], of [B, L, C].

    ``n`` becomes at most min(L, C). The vectors of a zero singular value are zero, with no
    gradient.
    """
    gram = column_products(x, x) if x.shape[2] <= x.shape[1] else row_products(x)
    n = min(n, gram.shape[1])
    square, vectors = SafeEigh.apply(gram)
    square, vectors = square.flip(1)[:, :n].clamp_min(0), vectors.flip(2)[:, :, :n]
    alive = square > torch.finfo(x.dtype).eps * gram.shape[1] * square[:, :1]
    vectors = vectors * alive[:, None]
    if x.shape[2] > x.shape[1]:
        vectors = unit_rows(vectors.mT @ x).mT
    return square.sqrt(), vectors


class SafeEigh(torch.autograd.Function):
    """Eigenvalues, ascending, and eigenvectors of symmetric matrices.

    Only the vectors pass a gradient. It holds the inverse gaps ``1 / (l_i - l_j)``, which for gaps
    far below the largest eigenvalue go smoothly to 0 instead of infinity: equal singular values
    leave a direction without a gradient, not a NaN.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(matrix)
        ctx.save_for_backward(values, vectors)
        ctx.mark_non_differentiable(values)
        return values, vectors

    @staticmethod
    def backward(ctx: Any, _: Tensor, grad: Tensor) -> Tensor:
        values, vectors = ctx.saved_tensors
        info = torch.finfo(values.dtype)
        gap = values[:, None, :] - values[:, :, None]  # [B, j, i], l_i - l_j
        floor = info.eps ** (2 / 3) * values.abs().amax(1)[:, None, None]
        inverse = gap / (gap.square() + floor.square()).clamp_min(info.tiny)
        inner = vectors @ (inverse * (vectors.mT @ grad)) @ vectors.mT
        return (inner + inner.mT) / 2
