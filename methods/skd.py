"""Streamlined knowledge distillation (Jung et al., CVPR 2026).

Two parts: the KL divergence, and the differences of the two networks' cosines between the samples'
logits, measured by the Mahalanobis distance. The covariance is that of these differences in the
batch; gradients pass through it, as in the authors' code.
"""

import torch
from torch import Tensor

from kdbench.method import Batch, Features, Incompatible, Method, Objective, Setup
from kdbench.tensors import exact, gram, kl, one_of, unit_rows, upcast


class SKD(Method):
    """Match predictions, and the directions of the logits relative to each other.

    Replaces the KL term: the authors weigh cross-entropy by 0.1 and the term by 0.9 (default), and
    both by 0.5 for resnet32x4 and resnet8x4.

    Args:
        tau: temperature of the first part.
        regularisation: added to the diagonal of the covariance.
        variant: "authors": the first part is multiplied by the share of samples whose confidence
            is at most the median, the second by the share of classes whose summed probability is
            (about a half each); "plain": without these factors.
    """

    family = "logit"
    beta = 0.9
    objective = Objective(gamma=0.1, alpha=0.0)

    def __init__(
        self,
        setup: Setup,
        *,
        tau: float = 4.0,
        regularisation: float = 0.1,
        variant: str = "authors",
    ) -> None:
        super().__init__(setup)
        if setup.batch_size < 2:
            raise Incompatible("SKD needs a covariance within the batch: batch size 2 or more")
        if regularisation <= 0:
            raise ValueError(f"regularisation is {regularisation}, expected a positive number")
        self.tau, self.regularisation = tau, regularisation
        self.shares = one_of("variant", variant, "authors", "plain") == "authors"

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        a, b = upcast(s.logits), upcast(t.logits)
        instances = kl(a, b, self.tau)
        directions = whitened_distance(cosines(a) - cosines(b), self.regularisation)
        if not self.shares:
            return instances + directions
        p = b.softmax(1)
        return low(p.amax(1)) * instances + low(p.sum(0)) * directions


def cosines(logits: Tensor) -> Tensor:
    """Return the cosines between the samples' logits, divided by K, [B, K] -> [B, B]."""
    return gram(unit_rows(logits)) / logits.shape[1]


def whitened_distance(gaps: Tensor, regularisation: float) -> Tensor:
    """Return the mean length of the rows relative to their own covariance, [B, D] -> scalar.

    The covariance is centred, the rows are not. A row of zeros has no gradient.
    """
    with exact(gaps):
        centred = gaps - gaps.mean(0)
        covariance = centred.mT @ centred / (len(gaps) - 1)
        eye = torch.eye(gaps.shape[1], dtype=gaps.dtype, device=gaps.device)
        # Unlike ``cholesky``, this does not wait for the device to see whether it succeeded.
        factor, _ = torch.linalg.cholesky_ex(covariance + regularisation * eye)
        white = torch.linalg.solve_triangular(factor, gaps.mT, upper=False)  # [D, B]
        square = white.square().sum(0)
    alive = square > 0
    return (torch.where(alive, square, torch.ones_like(square)).sqrt() * alive).mean()


def low(x: Tensor) -> Tensor:
    """Return the share of entries that are at most the median, [N] -> scalar.

    Between two middle entries, the median is their mean.
    """
    ordered = x.sort().values
    median = (ordered[(len(x) - 1) // 2] + ordered[len(x) // 2]) / 2
    return (x <= median).to(x.dtype).mean()
