"""Curriculum temperature (Li et al., AAAI 2023, arXiv:2211.16231).

``T^2 / B sum p_t (log p_t - log p_s)`` at a learnt temperature ``T = lowest + span sigmoid(g)``.
The student minimises this term, and g is trained to maximise it: its gradient is multiplied by
lambda, which falls from 0 to -1 as a cosine during the first epochs. The optimiser and its weight
decay treat g like a weight of the student, as in the authors' code. The paper's temperature for
each sample is not published as code and not included.
"""

import math

import torch
from torch import Tensor, nn

from kdbench.logits import divergences, entropy
from kdbench.method import Batch, Features, Method, Objective, Setup
from kdbench.schedules import in_epochs


class CTKD(Method):
    """Match softened predictions at a temperature that is trained against the student.

    Replaces the KL term of the objective; the weights are the authors' for CIFAR-100, 0.1 of
    cross-entropy and 0.9 of the term. For ImageNet they use 1, 1 and five epochs.

    Args:
        lowest: temperature for g at minus infinity.
        span: difference between the highest and the lowest temperature.
        loops: epochs until lambda is -1; at most 1: a share of the training.
        entropy_weighting: weigh each sample by the entropy of the teacher's prediction
            (arXiv:2311.13621).
        entropy_tau: temperature of that prediction.
    """

    family = "logit"
    beta = 0.9
    objective = Objective(gamma=0.1, alpha=0.0)

    def __init__(
        self,
        setup: Setup,
        *,
        lowest: float = 1.0,
        span: float = 20.0,
        loops: float = 10.0,
        entropy_weighting: bool = False,
        entropy_tau: float = 4.0,
    ) -> None:
        super().__init__(setup)
        if lowest <= 0 or span < 0:
            raise ValueError(f"lowest is {lowest}, span {span}; expected a temperature above 0")
        self.lowest, self.span, self.loops = lowest, span, loops
        self.entropy_weighting, self.entropy_tau = entropy_weighting, entropy_tau
        self.free = nn.Parameter(torch.ones(()))

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        # The value is that of g, the gradient lambda times that of g.
        constant = self.free.detach()
        reversed_ = constant + self.factor(batch) * (self.free - constant)
        losses = divergences(s.logits, t.logits, self.temperature(reversed_))
        if self.entropy_weighting:
            losses = losses * entropy(t.logits, self.entropy_tau)
        return losses.mean()

    def factor(self, batch: Batch) -> float:
        """Return lambda, from about 0 in the first epoch to -1."""
        total = in_epochs(self.loops, batch.epochs)
        share = min(batch.epoch, total) / total if total else 1.0
        return -(1 - math.cos(math.pi * share)) / 2

    def temperature(self, free: Tensor) -> Tensor:
        """Return the temperature for the value of g, a scalar."""
        return self.lowest + self.span * free.sigmoid()

    def trace(self, s: Features, t: Features) -> dict[str, Tensor]:
        return {"temperature": self.temperature(self.free)}
