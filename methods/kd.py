"""Knowledge distillation (Hinton et al., NIPS workshop 2014, arXiv:1503.02531), section 2."""

from torch import Tensor

from kdbench.method import Batch, Features, Method, Setup
from kdbench.tensors import kl, standardise


class KD(Method):
    """Match the teacher's softened predictions.

    Every objective already contains this term with the weight alpha, so ``beta`` is 0 here. With
    standardised logits it is a separate term: ``kd: {standardise: true, alpha: 0, beta: 9,
    gamma: 0.1, temperature: 2}`` is the setting of Sun et al., and it combines with any method.

    Args:
        temperature: temperature of the softened predictions.
        standardise: standardise both networks' logits first (Sun et al., Logit Standardization in
            Knowledge Distillation, CVPR 2024, arXiv:2403.01427, Algorithm 1).
    """

    family = "logit"
    beta = 0.0

    def __init__(
        self, setup: Setup, *, temperature: float = 4.0, standardise: bool = False
    ) -> None:
        super().__init__(setup)
        self.temperature, self.standardise = temperature, standardise

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        if self.standardise:
            return kl(standardise(s.logits), standardise(t.logits), self.temperature)
        return kl(s.logits, t.logits, self.temperature)
