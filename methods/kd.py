"""Knowledge distillation (Hinton et al., NIPS workshop 2014, arXiv:1503.02531), section 2."""

from torch import Tensor

from kdbench.method import Batch, Features, Method, Setup
from kdbench.objective import kl


class KD(Method):
    """Match the teacher's softened predictions.

    Every objective already holds this term, with the weight alpha; hence ``beta`` is 0 here.

    Args:
        temperature: of the softened predictions.
    """

    beta = 0.0

    def __init__(self, setup: Setup, *, temperature: float = 4.0) -> None:
        super().__init__(setup)
        self.temperature = temperature

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        return kl(s.logits, t.logits, self.temperature)
