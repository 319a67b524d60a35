"""Label smoothing (Szegedy et al., CVPR 2016, arXiv:1512.00567), section 7; no teacher.

The term is the difference to cross-entropy: with ``U = -mean_k log p_k`` it is
``epsilon (U - CE)``, so that ``CE + term = (1 - epsilon) CE + epsilon U``, exactly the smoothed CE.
"""

import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Features, Method, Objective, Setup
from kdbench.tensors import upcast


class LabelSmoothing(Method):
    """Spread a share of every label's probability evenly over all classes.

    Args:
        epsilon: share of the probability that is spread.
    """

    family = "logit"
    needs_teacher = False
    objective = Objective(gamma=1.0, alpha=0.0)

    def __init__(self, setup: Setup, *, epsilon: float = 0.1) -> None:
        super().__init__(setup)
        self.epsilon = epsilon

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        log_p = F.log_softmax(upcast(s.logits), dim=1)
        return -self.epsilon * (log_p.mean() + F.nll_loss(log_p, batch.labels))
