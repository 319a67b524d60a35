"""DIST: knowledge distillation from a stronger teacher (Huang et al., NeurIPS 2022, 2205.10536).

arXiv:2205.10536, Eqs. 5-10, with the factor tau^2 of the authors' code.
"""

import torch
from torch import Tensor

from kdbench.method import Batch, Features, Method, Objective, Setup
from kdbench.tensors import exact, standardise, unit_rows, upcast


class DIST(Method):
    """Correlate with the teacher's predictions, over the classes and over the batch.

    ``tau^2 (inter (1 - mean_b r(row b)) + intra (1 - mean_k r(column k)))``, where r is Pearson's
    correlation of softened probabilities. Replaces the KL term of the objective.

    Args:
        inter: weight of the correlation over classes, the paper's beta.
        intra: weight of the correlation over samples, the paper's gamma.
        tau: temperature.
        standardise: standardise logits first (arXiv:2403.01427).
    """

    family = "logit"
    objective = Objective(gamma=1.0, alpha=0.0)

    def __init__(
        self,
        setup: Setup,
        *,
        inter: float = 2.0,
        intra: float = 2.0,
        tau: float = 4.0,
        standardise: bool = False,
    ) -> None:
        super().__init__(setup)
        self.inter, self.intra, self.tau, self.standardise = inter, intra, tau, standardise

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        prepare = standardise if self.standardise else upcast
        with exact(s.logits):
            a, b = ((prepare(f.logits) / self.tau).softmax(1) for f in (s, t))
            inter, intra = 1 - correlation(a, b).mean(), 1 - correlation(a.T, b.T).mean()
            return self.tau**2 * (self.inter * inter + self.intra * intra)


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Return Pearson's correlation of rows, [B, K] x 2 -> [B]; constant rows give a constant 0."""
    return (deviation(a) * deviation(b)).sum(1)


def deviation(x: Tensor) -> Tensor:
    """Centre rows and scale them to unit length; rows of nothing but rounding noise become zero."""
    centred = x - x.mean(1, keepdim=True)
    size = torch.linalg.vector_norm(x.detach(), dim=1, keepdim=True)
    alive = torch.linalg.vector_norm(centred.detach(), dim=1, keepdim=True)
    return unit_rows(centred * (alive > 8 * torch.finfo(x.dtype).eps * size))
