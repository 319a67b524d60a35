"""Relational knowledge distillation (Park et al., CVPR 2019, arXiv:1904.05068), Eqs. 4-9."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Features, Method, Setup
from kdbench.tensors import centred_gram, exact, gaps, on_gpu, squared_gaps, upcast, zero


class RKD(Method):
    """Match relative distances and triplet angles of a batch's embeddings.

    Coincident embeddings have distance ``sqrt(eps)``, cosine 0 and no gradient.

    Args:
        distance: weight of the distances.
        angle: weight of the angles.
        eps: smallest squared distance.
    """

    family = "relation"

    def __init__(
        self, setup: Setup, *, distance: float = 25.0, angle: float = 50.0, eps: float = 1e-12
    ) -> None:
        super().__init__(setup)
        self.distance, self.angle, self.eps = distance, angle, eps

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        if len(s.embedding) < 2:
            return zero(s.embedding)
        with exact(s.embedding):
            (distances_s, distances_t), (angles_s, angles_t) = both(
                upcast(s.embedding).flatten(1), upcast(t.embedding).flatten(1), self.eps
            )
            distance = F.smooth_l1_loss(distances_s, distances_t)
            angle = F.smooth_l1_loss(angles_s, angles_t)
            return self.distance * distance + self.angle * angle


def both(s: Tensor, t: Tensor, eps: float) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Return the distances of student and teacher, and their angles, as ``relations`` does.

    On a GPU both networks are computed at once, with one product each.
    """
    if on_gpu(s):
        gram = torch.stack((centred_gram(s), centred_gram(t.detach())))
        distances, angles = relations(gaps(gram, torch.finfo(s.dtype).eps), gram, eps)
        return distances.unbind(), angles.unbind()
    student, teacher = (
        relations(squared_gaps(x), x @ x.T, eps) for x in (s - s.mean(0), t - t.mean(0))
    )
    return (student[0], teacher[0]), (student[1], teacher[1])


def relations(square: Tensor, gram: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return distances in units of their mean, [..., B, B], and cosines at each vertex.

    The angle at i between j and k is ``(G_jk - G_ij - G_ik + G_ii) / (d_ij d_ik)``, in O(B^3).

    Args:
        square: squared distances of the embeddings, [..., B, B].
        gram: inner products G of the centred embeddings, [..., B, B].
        eps: smallest squared distance.

    Returns:
        Distances, [..., B, B], and cosines, [..., B, B, B], vertex first.
    """
    apart = square > eps
    distance = torch.where(apart, square, torch.ones_like(square)).sqrt()
    inverse = apart / distance
    off = ~torch.eye(square.shape[-1], dtype=torch.bool, device=square.device)
    distance = torch.where(apart, distance, off * eps**0.5)
    to_j = gram[..., None]  # created first: the order decides the last bits of the gradient
    inner = gram[..., None, :, :] - to_j - gram[..., None, :]
    inner = inner + gram.diagonal(dim1=-2, dim2=-1)[..., None, None]
    angle = inner * inverse[..., None] * inverse[..., None, :]
    mean = distance.sum((-2, -1), keepdim=True) / off.sum()
    return distance / mean, angle
