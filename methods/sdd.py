"""Scale decoupled distillation (Wei et al., CVPR 2024, arXiv:2403.13512), Eqs. 3-7.

Both networks' last maps are pooled to grids of 1x1, 2x2 and 4x4 regions, and each region is
classified. A logit loss is averaged over all regions; it counts twice in a region where the
teacher is right although it is wrong for the whole image, or the other way round.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.logits import decoupled, divergences
from kdbench.method import Batch, Features, Incompatible, Method, Objective, Setup
from kdbench.region_logits import classified, last_map, regions, teacher_classifier
from kdbench.schedules import warmup as warmup_at
from kdbench.tensors import one_of


class SDD(Method):
    """Distill the logits of each region of a pyramid.

    Added to cross-entropy, without the KL term; with base "kd" the authors weigh cross-entropy by
    0.1 and the term by 0.9: ``sdd: {base: kd, gamma: 0.1, beta: 0.9}``.

    Args:
        base: "kd"; "dkd"; or "nkd", as in the authors' repository, where the second part includes
            the label, because the mask has no effect.
        levels: 3: grids 1x1, 2x2 and 4x4, 21 regions; 2: the first two, 5 regions; 1: the image.
        tau: temperature.
        target: weight of the label's part of "dkd", its alpha.
        rest: weight of the other classes' part of "dkd" and "nkd", DKD's beta; for both the authors
            take DKD's value for the pair.
        warmup: epochs, or share of the training, over which the term grows linearly to its full
            weight; 0: none. Not used with "kd".
    """

    family = "logit"
    objective = Objective(gamma=1.0, alpha=0.0)

    def __init__(
        self,
        setup: Setup,
        *,
        base: str = "dkd",
        levels: int = 3,
        tau: float = 4.0,
        target: float = 1.0,
        rest: float = 8.0,
        warmup: float = 20.0,
    ) -> None:
        super().__init__(setup)
        self.base = one_of("base", base, "kd", "dkd", "nkd")
        if levels not in (1, 2, 3):
            raise ValueError(f"levels is {levels}, expected 1, 2 or 3")
        if setup.num_classes < 2:
            raise Incompatible(f"SDD needs two classes or more, not {setup.num_classes}")
        self.classifier = teacher_classifier("SDD", setup)
        assert setup.student_head is not None
        self.student_head = setup.student_head
        self.levels, self.tau, self.target, self.rest = levels, tau, target, rest
        self.warmup = 0.0 if base == "kd" else warmup

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        a, b = self.region_logits(s, t)
        count = a.shape[1]
        labels = batch.labels[:, None].expand(-1, count)
        right = b.argmax(2) == labels  # [B, regions]
        weights = 1 + (right != right[:, :1]).to(a.dtype)
        losses = self.losses(a.flatten(0, 1), b.flatten(0, 1), labels.flatten())
        ramp = warmup_at(batch.epoch, self.warmup, batch.epochs)
        return ramp * (weights.flatten() * losses).mean()

    def region_logits(self, s: Features, t: Features) -> tuple[Tensor, Tensor]:
        """Return the student's and the teacher's logits, [B, regions, K]; the image is first."""
        sides = ((s, self.student_head), (t, self.classifier))
        a, b = (
            torch.cat([classified(x, head) for x in regions(last_map(f), self.levels)], 1)
            for f, head in sides
        )
        return a, b

    def losses(self, a: Tensor, b: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each region, [N, K] x 2, [N] -> [N]."""
        tau = self.tau
        if self.base == "kd":
            return divergences(a, b, tau)
        if self.base == "dkd":
            target, rest = decoupled(a / tau, b / tau, labels)
            return tau**2 * (self.target * target + self.rest * rest)
        confidence = F.softmax(b, 1) * F.log_softmax(a, 1)
        label = confidence.gather(1, labels[:, None]).squeeze(1)
        every = (F.softmax(b / tau, 1) * F.log_softmax(a / tau, 1)).sum(1)
        return -label - self.rest * tau**2 * every
