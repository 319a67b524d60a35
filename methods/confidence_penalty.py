"""Confidence penalty (Pereyra et al., ICLR 2017 workshop, arXiv:1701.06548), section 3; no teacher.

``CE + beta * term``; the term is the negative entropy of the predictions, ``-H(p)``.
"""

import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Features, Method, Objective, Setup
from kdbench.tensors import upcast


class ConfidencePenalty(Method):
    """Penalise predictions of low entropy.

    Args:
        threshold: penalise only entropies below this, ``max(0, threshold - H)`` (the paper's
            annealed form); None: penalise all.
    """

    family = "logit"
    beta = 0.1
    needs_teacher = False
    objective = Objective(gamma=1.0, alpha=0.0)

    def __init__(self, setup: Setup, *, threshold: float | None = None) -> None:
        super().__init__(setup)
        self.threshold = threshold

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        log_p = F.log_softmax(upcast(s.logits), dim=1)
        entropy = -(log_p.exp() * log_p).sum(1)  # [B]
        if self.threshold is None:
            return -entropy.mean()
        return (self.threshold - entropy).relu().mean()
