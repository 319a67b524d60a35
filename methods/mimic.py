"""Logit matching (Ba & Caruana, Do Deep Nets Really Need to be Deep?, NIPS 2014, arXiv:1312.6184).

``1/(2B) sum_b ||z_s - z_t||^2`` on the logits, without softmax. It is the limit of KD for high
temperatures: with centred logits, K times the scaled KL divergence becomes this term. It needs no
labels, so the student can also learn from unlabelled images, as in model compression (Bucila et
al., KDD 2006): see ``transfer`` in docs/grids.md.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from kdbench.method import Batch, Features, Method, Objective, Setup
from kdbench.tensors import upcast


class Mimic(Method):
    """Regress the teacher's logits; the only loss, without cross-entropy and KL.

    Args:
        centre: subtract each sample's mean from its logits first; the softmax ignores it, too.
        standardise: divide each class's logits, of both networks, by the standard deviation of the
            teacher's logits of that class over the training set. The paper normalises the
            regression targets; here the student still answers with logits on the teacher's scale.
            A class whose logits do not vary is not scaled.
    """

    family = "logit"
    objective = Objective(gamma=0.0, alpha=0.0)
    deviation: Tensor

    def __init__(self, setup: Setup, *, centre: bool = False, standardise: bool = False) -> None:
        super().__init__(setup)
        self.centre, self.standardise = centre, standardise
        if standardise:
            self.register_buffer("deviation", torch.ones(setup.num_classes))

    def prepare(self, examples: Iterable[tuple[Features, Tensor]]) -> None:
        if not self.standardise:
            return
        # Of the logits so far; merged as Chan et al., 1979.
        count, mean, square = 0, self.deviation.double() * 0, self.deviation.double() * 0
        for features, _ in examples:
            logits = self.centred(features.logits.double())
            n, new = len(logits), logits.mean(0)
            gap = new - mean
            square = square + (logits - new).square().sum(0) + gap**2 * (count * n / (count + n))
            mean = mean + gap * (n / (count + n))
            count += n
        if count:
            deviation = (square / count).sqrt()
            size = torch.finfo(torch.float32).eps * mean.abs()
            self.deviation.copy_(torch.where(deviation > size, deviation, 1.0))

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        gap = self.centred(upcast(s.logits) - upcast(t.logits))
        if self.standardise:
            gap = gap / self.deviation
        return gap.square().sum(1).mean() / 2

    def centred(self, logits: Tensor) -> Tensor:
        """Subtract each row's mean if the option asks for it, [B, K] -> [B, K]."""
        return logits - logits.mean(1, keepdim=True) if self.centre else logits
