"""Transformed teacher matching (Zheng & Yang, ICLR 2024, arXiv:2402.11148).

KD without the student's temperature: ``mean_b w_b D(p_t^(T) || p_s)``, without a factor T^2. Here
``p^(T)`` is softmax at temperature T, that is the power transform ``p^(1/T)``, normalised to sum to
1. TTM: ``w = 1``. Weighted (WTTM): ``w_b = sum_k p_t,k^(1/T)``, large if the teacher is uncertain.
"""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from kdbench.logits import entropy
from kdbench.method import Batch, Features, Method, Objective, Setup
from kdbench.tensors import standardise, upcast


class TTM(Method):
    """Match the teacher's softened predictions with the student's unsoftened predictions.

    Replaces the KL term of the objective: cross-entropy + beta * term. The authors tune T and beta
    for every pair; the defaults are their example, vgg13 to vgg8 on CIFAR-100.

    Args:
        tau: temperature T of the teacher; the paper's exponent is 1/T.
        weighted: WTTM; the authors' example for it is T = 5 with beta = 4.
        standardise: standardise logits first (arXiv:2403.01427).
        entropy_weighting: weigh each sample by the entropy of the teacher's prediction
            (arXiv:2311.13621).
        entropy_tau: temperature of that prediction, made from logits that are not standardised.
    """

    family = "logit"
    beta = 45.0
    objective = Objective(gamma=1.0, alpha=0.0)
    added_later: ClassVar = ("entropy_weighting", "entropy_tau")

    def __init__(
        self,
        setup: Setup,
        *,
        tau: float = 10.0,
        weighted: bool = False,
        standardise: bool = False,
        entropy_weighting: bool = False,
        entropy_tau: float = 4.0,
    ) -> None:
        super().__init__(setup)
        self.tau, self.weighted, self.standardise = tau, weighted, standardise
        self.entropy_weighting, self.entropy_tau = entropy_weighting, entropy_tau

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        prepare = standardise if self.standardise else upcast
        log_s, log_t = (F.log_softmax(prepare(f.logits), 1) for f in (s, t))
        power = log_t / self.tau
        total = power.logsumexp(1)  # [B], log of the power sum
        soft = power - total[:, None]
        divergence = (soft.exp() * (soft - log_s)).sum(1)
        if self.entropy_weighting:
            divergence = divergence * entropy(t.logits, self.entropy_tau)
        return (divergence * total.exp() if self.weighted else divergence).mean()
