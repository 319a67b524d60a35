"""Knowledge distillation (Hinton et al., NIPS workshop 2014, arXiv:1503.02531), section 2."""

from typing import ClassVar

from torch import Tensor

from kdbench.logits import divergences, entropy
from kdbench.method import Batch, Features, Method, Setup
from kdbench.tensors import kl, standardise, upcast


class KD(Method):
    """Match the teacher's softened predictions.

    Every objective already contains this term with the weight alpha, so ``beta`` is 0 here. With
    standardised logits or weighted samples it is a separate term: ``kd: {standardise: true,
    alpha: 0, beta: 9, gamma: 0.1, temperature: 2}`` is the setting of Sun et al., and it combines
    with any method.

    Args:
        temperature: temperature of the softened predictions.
        standardise: standardise both networks' logits first (Sun et al., Logit Standardization in
            Knowledge Distillation, CVPR 2024, arXiv:2403.01427, Algorithm 1).
        entropy_weighting: weigh each sample by the entropy of the teacher's prediction (Su et al.,
            Knowledge Distillation with Entropy-Based Reweighting, arXiv:2311.13621); the weights
            are not normalised.
        entropy_tau: temperature of that prediction, made from logits that are not standardised.
    """

    family = "logit"
    beta = 0.0
    added_later: ClassVar = ("entropy_weighting", "entropy_tau")

    def __init__(
        self,
        setup: Setup,
        *,
        temperature: float = 4.0,
        standardise: bool = False,
        entropy_weighting: bool = False,
        entropy_tau: float = 4.0,
    ) -> None:
        super().__init__(setup)
        self.temperature, self.standardise = temperature, standardise
        self.entropy_weighting, self.entropy_tau = entropy_weighting, entropy_tau

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        if self.entropy_weighting:
            prepare = standardise if self.standardise else upcast
            losses = divergences(prepare(s.logits), prepare(t.logits), self.temperature)
            return (losses * entropy(t.logits, self.entropy_tau)).mean()
        if self.standardise:
            return kl(standardise(s.logits), standardise(t.logits), self.temperature)
        return kl(s.logits, t.logits, self.temperature)
