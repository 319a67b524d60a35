"""Correlation congruence (Peng et al., ICCV 2019, arXiv:1904.01802).

Two variants share only the name. ``repdistiller`` compares neighbours in the batch only; published
benchmark numbers are of this variant. ``paper`` follows Eqs. 4-8.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Batch, Features, Method, Setup
from kdbench.tensors import exact, one_of, unit_rows, upcast


class CC(Method):
    """Match the correlations between the samples of a batch.

    Args:
        variant: "repdistiller" or "paper".
        width: ``repdistiller``: width of the embeddings, which are learned for both networks.
        rbf: ``paper``: inverse width of the Gaussian kernel.
        order: ``paper``: order of the kernel's Taylor expansion.
    """

    family = "relation"
    beta = 0.02

    def __init__(
        self,
        setup: Setup,
        *,
        variant: str = "repdistiller",
        width: int = 128,
        rbf: float = 0.4,
        order: int = 2,
    ) -> None:
        super().__init__(setup)
        self.paper = one_of("variant", variant, "repdistiller", "paper") == "paper"
        self.rbf, self.order = rbf, order
        if not self.paper:
            self.embed_s = nn.Linear(setup.student.embedding.shape[1], width)
            self.embed_t = nn.Linear(setup.teacher.embedding.shape[1], width)

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        a, b = upcast(s.embedding), upcast(t.embedding)
        if not self.paper:
            delta = (upcast(self.embed_s(a)) - upcast(self.embed_t(b))).abs()  # [B, width]
            return (delta[:-1] * delta[1:]).sum() / max(len(delta) - 1, 1)
        with exact(a):
            return F.mse_loss(self.correlation(a), self.correlation(b))

    def correlation(self, embedding: Tensor) -> Tensor:
        """Return the Taylor sum of ``exp(-rbf |u_i - u_j|^2)``, unit rows u, [B, D] -> [B, B]."""
        unit = unit_rows(embedding)
        cosine = unit @ unit.T
        total = torch.zeros_like(cosine)
        for p in reversed(range(self.order + 1)):  # Horner
            total = total * cosine + (2 * self.rbf) ** p / math.factorial(p)
        return math.exp(-2 * self.rbf) * total
