"""Universal self-knowledge distillation (Yang et al., ICCV 2023, arXiv:2303.13005).

No teacher. Three parts, with y the label and p the student's prediction:

- target: ``-mean_b a_b log p[y]`` with the constant ``a_b = p[y]^2 + 1 - mean p[y]^2``;
- rest: ``-mean_b sum_{k != y} n_k log q_k``, where q is the prediction over the other classes, and
  n_k is the inverse of the rank of class k, normalised to sum to 1 (Zipf's law);
- weak: cross-entropy of a linear classifier w on the stage before the last, averaged over
  positions, with smoothed labels: 0.9 and ``0.1 / K`` for every class.

Classes are ranked by the sum of the two classifiers' normalised predictions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.logits import is_label, log_softmax_of_rest
from kdbench.method import Batch, Features, Incompatible, Method, Objective, Setup
from kdbench.tensors import one_of, upcast

SMOOTHING = 0.1
EPSILON = 1e-6


class USKD(Method):
    """Learn from targets that the student makes itself; added to cross-entropy.

    The defaults are the authors' for CIFAR-100; for ImageNet they use 1, 0.1 and 0.005.

    Args:
        target: weight of the label's part, the paper's alpha.
        rest: weight of the other classes' part, the paper's beta.
        weak: weight of the second classifier's part, the paper's mu.
        variant: the student's part of the ranking: "authors": ``log p_k / (1 - log p_y)``, as in
            the authors' code; "paper": ``p_k / (1 - p_y)``.
    """

    family = "logit"
    needs_teacher = False
    objective = Objective(gamma=1.0, alpha=0.0)

    def __init__(
        self,
        setup: Setup,
        *,
        target: float = 0.1,
        rest: float = 0.1,
        weak: float = 0.1,
        variant: str = "authors",
    ) -> None:
        super().__init__(setup)
        stages = len(setup.student.stages)
        if stages < 2:
            raise Incompatible(f"USKD needs two stages or more, not {stages}")
        if setup.num_classes < 2:
            raise Incompatible(f"USKD needs two classes or more, not {setup.num_classes}")
        self.target, self.rest, self.weak = target, rest, weak
        self.log_ranking = one_of("variant", variant, "authors", "paper") == "authors"
        self.fc = nn.Linear(setup.student.stages[-2].shape[1], setup.num_classes)

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        return self.parts(upcast(s.logits), upcast(s.stages[-2]).mean((2, 3)), batch.labels)

    def parts(self, logits: Tensor, pooled: Tensor, labels: Tensor) -> Tensor:
        """Return the weighted sum of the three parts, a scalar.

        Args:
            logits: the student's, [B, K].
            pooled: the stage before the last, averaged over positions, [B, C].
            labels: [B].
        """
        log_p, log_w = F.log_softmax(logits, 1), F.log_softmax(upcast(self.fc(pooled)), 1)
        label, chosen = is_label(logits, labels), labels[:, None]
        log_label = log_p.gather(1, chosen).squeeze(1)
        square = log_label.detach().exp().square()
        target = -((square + 1 - square.mean()) * log_label).mean()
        zipf = self.zipf(log_p.detach(), log_w.detach(), label, chosen)
        rest = -(zipf * log_softmax_of_rest(logits, label)).sum(1).mean()
        weak = F.cross_entropy(log_w, labels) * (1 - SMOOTHING) - SMOOTHING * log_w.mean()
        return self.target * target + self.rest * rest + self.weak * weak

    def zipf(self, log_p: Tensor, log_w: Tensor, label: Tensor, chosen: Tensor) -> Tensor:
        """Return the targets of the other classes, [B, K], 0 at the label; rows sum to 1."""
        strong, weak = log_p if self.log_ranking else log_p.exp(), log_w.exp()
        score = sum(x / (1 - x.gather(1, chosen) + EPSILON) for x in (weak, strong))
        order = torch.as_tensor(score).argsort(dim=1, descending=True, stable=True)
        inverse = 1 / torch.arange(1, order.shape[1] + 1, device=order.device, dtype=log_p.dtype)
        ranked = torch.empty_like(log_p).scatter(1, order, inverse.expand_as(log_p))
        others = ranked.masked_fill(label, 0.0)
        return others / others.sum(1, keepdim=True)
