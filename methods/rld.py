"""Refined logit distillation (Sun et al., ICCV 2025, arXiv:2408.07703), Eqs. 5-9.

A wrong teacher contradicts cross-entropy. So the student's probability of the label learns the
teacher's largest probability, whichever class that is, and the comparison of the other classes
leaves out those that the teacher prefers to the label.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.logits import is_label
from kdbench.method import Batch, Features, Incompatible, Method, Objective, Setup
from kdbench.schedules import warmup as warmup_at
from kdbench.tensors import standardise, upcast

LEFT_OUT = -1e9
"""Logit of a class that is left out; finite, because a sample may leave out all classes."""


class RLD(Method):
    """Match the confidence, and the classes that the teacher ranks below the label.

    Added to cross-entropy, without the KL term. The defaults are those of the authors' command for
    CIFAR-100, where both temperatures are the same.

    Args:
        confidence: weight of the first part, the paper's alpha.
        correlation: weight of the second part, the paper's beta.
        tau: temperature of the second part.
        confidence_tau: temperature of the first part.
        warmup: epochs, or share of the training, over which the term grows linearly to its full
            weight; 0: none.
        standardise: standardise logits first (arXiv:2403.01427).
    """

    family = "logit"
    objective = Objective(gamma=1.0, alpha=0.0)

    def __init__(
        self,
        setup: Setup,
        *,
        confidence: float = 1.0,
        correlation: float = 8.0,
        tau: float = 4.0,
        confidence_tau: float = 4.0,
        warmup: float = 20.0,
        standardise: bool = False,
    ) -> None:
        super().__init__(setup)
        if setup.num_classes < 2:
            raise Incompatible(f"RLD needs two classes or more, not {setup.num_classes}")
        self.confidence, self.correlation = confidence, correlation
        self.tau, self.confidence_tau = tau, confidence_tau
        self.warmup, self.standardise = warmup, standardise

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        prepare = standardise if self.standardise else upcast
        a, b = (prepare(f.logits) for f in (s, t))
        confidence = self.confidence * confidence_gap(a, b, batch.labels, self.confidence_tau)
        correlation = self.correlation * masked_divergence(a, b, batch.labels, self.tau)
        ramp = warmup_at(batch.epoch, self.warmup, batch.epochs)
        return ramp * (confidence + correlation)


def confidence_gap(a: Tensor, b: Tensor, labels: Tensor, tau: float) -> Tensor:
    """Return ``T^2`` times the divergence of two classes, chosen and rest, a scalar.

    The student's chosen class is the label, the teacher's the one with the largest logit.
    """
    in_s, out_s = _two_classes(a / tau, labels)
    in_t, out_t = _two_classes(b / tau, b.argmax(1))
    return tau**2 * (in_t.exp() * (in_t - in_s) + out_t.exp() * (out_t - out_s)).mean()


def _two_classes(logits: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities of the chosen class and of the rest, [B] each."""
    total = logits.logsumexp(1)
    rest = logits.masked_fill(is_label(logits, chosen), -torch.inf).logsumexp(1)
    return logits.gather(1, chosen[:, None]).squeeze(1) - total, rest - total


def masked_divergence(a: Tensor, b: Tensor, labels: Tensor, tau: float) -> Tensor:
    """Return ``T^2`` times the divergence within the classes below the label, a scalar.

    Left out are the label and the classes whose logit from the teacher is at least the label's. A
    sample whose label has the teacher's lowest logit adds nothing.
    """
    above = b >= b.gather(1, labels[:, None])
    log_s, log_t = (F.log_softmax((x / tau).masked_fill(above, LEFT_OUT), 1) for x in (a, b))
    return tau**2 * (log_t.exp() * (log_t - log_s)).sum(1).mean()
