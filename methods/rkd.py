"""Relational knowledge distillation (Park et al., CVPR 2019, arXiv:1904.05068), Eqs. 4-9."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Features, Method, Setup
from kdbench.tensors import exact, squared_gaps, upcast, zero


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
            distances_s, angles_s = relations(s.embedding, self.eps)
            distances_t, angles_t = relations(t.embedding, self.eps)
            distance = F.smooth_l1_loss(distances_s, distances_t)
            angle = F.smooth_l1_loss(angles_s, angles_t)
            return self.distance * distance + self.angle * angle


def relations(embedding: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return distances in units of their mean, [B, B], and cosines at each vertex, [B, B, B].

    The angle at i between j and k comes from the Gram matrix G of the centred embeddings:
    ``(G_jk - G_ij - G_ik + G_ii) / (d_ij d_ik)``, in O(B^2 D + B^3).
    """
    x = upcast(embedding).flatten(1)
    x = x - x.mean(0)
    square = squared_gaps(x)  # [B, B]
    apart = square > eps
    distance = torch.where(apart, square, torch.ones_like(square)).sqrt()
    inverse = apart / distance
    off = ~torch.eye(len(x), dtype=torch.bool, device=x.device)
    distance = torch.where(apart, distance, off * eps**0.5)
    gram = x @ x.T
    inner = gram - gram[:, :, None] - gram[:, None, :] + gram.diagonal()[:, None, None]
    angle = inner * inverse[:, :, None] * inverse[:, None, :]  # [B, B, B], vertex first
    return distance / (distance.sum() / off.sum()), angle
