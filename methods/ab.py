"""Distillation of activation boundaries (Heo et al., AAAI 2019, arXiv:1811.03233), Eqs. 4-6.

As in RepDistiller, the term initialises the student in a pretraining phase. Training itself
does not use the term unless ``main`` is set.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdbench.method import Batch, Features, Incompatible, Method, Setup
from kdbench.tensors import hint_regressor, same_size, sum_squares, upcast, zero


class AB(Method):
    """Match the sign of the teacher's pre-activations, with a margin.

    Args:
        margin: distance from zero, on the teacher's side, that a pre-activation should keep.
        main: use the term in the main phase, too; the connectors stay frozen after pretraining.
    """

    family = "feature map"

    def __init__(self, setup: Setup, *, margin: float = 1.0, main: bool = False) -> None:
        super().__init__(setup)
        self.margin, self.main = margin, main
        s, t = setup.student.preacts, setup.teacher.preacts
        if len(s) != len(t):
            shapes = [[list(x.shape[1:]) for x in side] for side in (s, t)]
            raise Incompatible(f"AB needs equal depths: student {shapes[0]}, teacher {shapes[1]}")
        self.connectors = nn.ModuleList(
            nn.Identity() if a.shape[1:3] == b.shape[1:3] else hint_regressor(a, b, relu=False)
            for a, b in zip(s, t, strict=True)
        )

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        return self.boundary(s, t) if self.main else zero(s.logits)

    def pretrain(self, student: nn.Module) -> Sequence[nn.Module]:
        trunk: Sequence[nn.Module] = student.trunk()  # type: ignore[operator]
        return [*trunk, self.connectors]

    def pretrain_loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        return self.boundary(s, t)

    def boundary(self, s: Features, t: Features) -> Tensor:
        """Return the squared hinge loss, summed over units; each stage weighs half of the next."""
        terms = []
        matched = zip(self.connectors, s.preacts, t.preacts, strict=True)
        for i, (connector, a, b) in enumerate(matched):
            x, y = same_size(upcast(connector(upcast(a))), b)
            miss = (x * torch.where(y > 0, -1.0, 1.0) + self.margin).relu()
            weight = 0.003 * 2.0 ** (i + 1 - len(self.connectors))
            terms.append(weight * sum_squares(miss, 0, 1, 2, 3) / len(x))
        return torch.stack(terms).sum()
