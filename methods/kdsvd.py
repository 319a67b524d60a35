"""Self-supervised distillation using SVD (Lee, Kim & Song, ECCV 2018, arXiv:1807.06819).

The form of RepDistiller: each sample's map of a stage, as a matrix [H*W, C], has right singular
vectors in channel space. (mdistiller's is not implemented: it decomposes [C*H, W], with vectors in
the space of columns.) Each of the teacher's first ``k`` vectors is matched to the most parallel of
the student's first ``k + 3``, with equal sign. Both are weighted by the teacher's singular values,
scaled to a unit vector. Between consecutive stages, with vectors v' and v,
``R_ij = exp(-(v_i - v'_j)^2 / 8)``; the term is ``sum (R_s - R_t)^2 / B`` over stages and channels.
R depends on the signs of the teacher's vectors. The benchmarks leave these to the SVD; here they
are such that the entries of a vector sum to 0 or more.

This method is for CPUs: on a GPU, torch decomposes matrices wider than 32 one at a time, and the
host waits for each call. 64 float32 matrices took 67.6 ms at width 64 and 137.5 ms at width 128
(github.com/pytorch/pytorch/issues/175585; not measured with kdbench); a step has two calls a stage.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from kdbench.method import Batch, Features, Incompatible, Method, Setup
from kdbench.tensors import column_products, exact, pairs, row_products, unit_rows, upcast


class KDSVD(Method):
    """Match how the maps' main directions in channel space change from stage to stage.

    Args:
        k: number of singular vectors per map; at most the rank that every map can have, the smaller
            of its channels and its positions.
    """

    family = "feature map"
    capturable = False

    def __init__(self, setup: Setup, *, k: int = 1) -> None:
        super().__init__(setup)
        self.k = k
        s, t = ([x.shape[1] for x in f.stages] for f in (setup.student, setup.teacher))
        depth = min(len(s), len(t))
        if s[:depth] != t[:depth]:
            raise Incompatible(f"KDSVD needs equal channels: student {s}, teacher {t}")
        if depth < 2:
            raise Incompatible(f"KDSVD needs two stages or more: student {s}, teacher {t}")
        maps = [x for f in (setup.student, setup.teacher) for x in f.stages[:depth]]
        most = min(min(x.shape[1], x.shape[2] * x.shape[3]) for x in maps)
        if not 1 <= k <= most:
            shapes = [list(x.shape[1:]) for x in maps]
            raise Incompatible(f"KDSVD: k is {k}, expected 1 to {most}: the maps are {shapes}")

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        with exact(s.logits):
            vectors = [aligned(a, b, self.k) for a, b in pairs(s.stages, t.stages)]
            gaps = [
                (relation(s1, s2) - relation(t1, t2)).square().sum()
                for (s1, t1), (s2, t2) in pairwise(vectors)
            ]
            return torch.stack(gaps).sum() / len(s.logits)


def relation(earlier: Tensor, later: Tensor) -> Tensor:
    """Return R between consecutive stages, [B, C', k], [B, C, k] -> [B, C, C', k]."""
    return ((later[:, :, None] - earlier[:, None]).square() * -0.125).exp()


def aligned(a: Tensor, b: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return matched, weighted vectors of student and teacher at a stage, [B, C, k] each."""
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
    """Return the first n singular values, [B, n], and right vectors, [B, C, n], of [B, L, C].

    ``n`` is reduced to min(L, C) if larger. Vectors of a zero singular value are zero, without a
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
    """Ascending eigenvalues and eigenvectors of symmetric matrices, with a finite gradient.

    Only the vectors pass a gradient. It contains the inverse gaps ``1 / (l_i - l_j)``. For gaps far
    below the largest eigenvalue, they go smoothly to 0 here instead of infinity, so that equal
    singular values give no gradient rather than NaN.
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
