"""Decoupled knowledge distillation (Zhao et al., CVPR 2022, arXiv:2203.08679), Eqs. 2-7."""

from typing import ClassVar

from torch import Tensor

from kdbench.logits import decoupled, entropy
from kdbench.method import Batch, Features, Incompatible, Method, Objective, Setup
from kdbench.tensors import standardise, upcast


class DKD(Method):
    """Weigh separately the teacher's confidence in the label and its view of the other classes.

    Replaces the KL term of the objective: cross-entropy + warm-up * term.

    Args:
        target: weight of the label's part, the paper's alpha.
        rest: weight of the other classes' part, the paper's beta; 2 to 8, depending on the pair.
        tau: temperature.
        warmup: epochs over which the term grows linearly to its full weight; 0: none.
        standardise: standardise logits first (arXiv:2403.01427).
        entropy_weighting: weigh each sample by the entropy of the teacher's prediction
            (arXiv:2311.13621). Those authors' code for DKD multiplies the batch's mean loss by its
            mean entropy instead, because of a broadcast; this follows the paper.
        entropy_tau: temperature of that prediction, made from logits that are not standardised.
    """

    family = "logit"
    objective = Objective(gamma=1.0, alpha=0.0)
    added_later: ClassVar = ("entropy_weighting", "entropy_tau")

    def __init__(
        self,
        setup: Setup,
        *,
        target: float = 1.0,
        rest: float = 8.0,
        tau: float = 4.0,
        warmup: int = 20,
        standardise: bool = False,
        entropy_weighting: bool = False,
        entropy_tau: float = 4.0,
    ) -> None:
        super().__init__(setup)
        if setup.num_classes < 2:
            raise Incompatible(f"DKD needs two classes or more, not {setup.num_classes}")
        self.target, self.rest, self.tau = target, rest, tau
        self.warmup, self.standardise = warmup, standardise
        self.entropy_weighting, self.entropy_tau = entropy_weighting, entropy_tau

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        prepare = standardise if self.standardise else upcast
        a, b = (prepare(f.logits) / self.tau for f in (s, t))
        target, rest = decoupled(a, b, batch.labels)
        if self.entropy_weighting:
            weights = entropy(t.logits, self.entropy_tau)
            target, rest = target * weights, rest * weights
        target, rest = target.mean(), rest.mean()
        ramp = min(batch.epoch / self.warmup, 1.0) if self.warmup else 1.0
        return ramp * self.tau**2 * (self.target * target + self.rest * rest)
