"""Normalised knowledge distillation (Yang et al., ICCV 2023, arXiv:2303.13005).

``-mean_b p_t[y] log p_s[y] + rest T^2 mean_b sum_{k != y} -q_t,k log q_s,k``. Here y is the label,
p are the unsoftened predictions, and q those at temperature T over the other classes, normalised to
sum to 1. Both parts are cross-entropies, so the term is not 0 if the student equals its teacher.
"""

import torch.nn.functional as F
from torch import Tensor

from kdbench.logits import entropy, is_label, log_softmax_of_rest
from kdbench.method import Batch, Features, Incompatible, Method, Objective, Setup
from kdbench.tensors import one_of, upcast


class NKD(Method):
    """Learn the teacher's confidence in the label, and its normalised view of the other classes.

    Added to cross-entropy, without the KL term. The defaults are the authors' for CIFAR-100; for
    ImageNet they use ``rest`` 1.5 and ``tau`` 1.

    Args:
        rest: weight of the other classes' part, the paper's gamma.
        tau: temperature of the other classes' part.
        variant: "authors"; or "sdd_repo", the copy in SDD's repository, whose mask has no effect:
            its second part includes the label. Use it to reproduce that paper's NKD rows only.
        entropy_weighting: weigh each sample by the entropy of the teacher's prediction
            (arXiv:2311.13621).
        entropy_tau: temperature of that prediction.
    """

    family = "logit"
    objective = Objective(gamma=1.0, alpha=0.0)

    def __init__(
        self,
        setup: Setup,
        *,
        rest: float = 3.5,
        tau: float = 3.0,
        variant: str = "authors",
        entropy_weighting: bool = False,
        entropy_tau: float = 4.0,
    ) -> None:
        super().__init__(setup)
        if setup.num_classes < 2:
            raise Incompatible(f"NKD needs two classes or more, not {setup.num_classes}")
        self.rest, self.tau = rest, tau
        self.masked = one_of("variant", variant, "authors", "sdd_repo") == "authors"
        self.entropy_weighting, self.entropy_tau = entropy_weighting, entropy_tau

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        a, b = upcast(s.logits), upcast(t.logits)
        label = is_label(a, batch.labels)
        log_p, chosen = F.log_softmax(a, dim=1), batch.labels[:, None]
        target = -(F.softmax(b, dim=1) * log_p).gather(1, chosen).squeeze(1)
        log_s, log_t = (self.others(x / self.tau, label) for x in (a, b))
        probabilities = log_t.exp()
        losses = target - self.rest * self.tau**2 * (probabilities * log_s).sum(1)  # [B]
        if self.entropy_weighting:
            losses = losses * entropy(b, self.entropy_tau)
        return losses.mean()

    def others(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return log-probabilities of the second part, [B, K]."""
        if self.masked:
            return log_softmax_of_rest(logits, label)
        return F.log_softmax(logits, dim=1)
