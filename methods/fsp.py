"""Flow of solution procedure: a gift from knowledge distillation (Yim et al., CVPR 2017), Eqs. 1-2.

As in RepDistiller: average pooling, means instead of weighted sums, and the term only initialises
the student in a pretraining phase unless ``main`` is set. (The paper has no arXiv version.)
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Batch, Features, Incompatible, Method, Setup
from kdbench.tensors import column_products, exact, same_size, upcast, zero


class FSP(Method):
    """Match the inner products between the channels of consecutive maps.

    Args:
        main: use the term in the main phase, too.
    """

    family = "feature map"

    def __init__(self, setup: Setup, *, main: bool = False) -> None:
        super().__init__(setup)
        self.main = main
        s, t = ([x.shape[1] for x in (f.stem, *f.stages)] for f in (setup.student, setup.teacher))
        if s != t:
            raise Incompatible(f"FSP needs equal channels: student {s}, teacher {t}")

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        return self.distance(s, t) if self.main else zero(s.logits)

    def pretrain(self, student: nn.Module) -> Sequence[nn.Module]:
        trunk: Sequence[nn.Module] = student.trunk()  # type: ignore[operator]
        return trunk

    def pretrain_loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        return self.distance(s, t)

    def distance(self, s: Features, t: Features) -> Tensor:
        """Return the mean squared error of flow matrices, summed over consecutive maps."""
        with exact(s.stem):
            matched = zip(flows(s), flows(t), strict=True)
            return torch.stack([F.mse_loss(a, b) for a, b in matched]).sum()


def flows(f: Features) -> list[Tensor]:
    """Return inner products of consecutive maps' channels over positions, each [B, C_g, C_f]."""
    matrices = []
    for maps in pairwise((f.stem, *f.stages)):
        earlier, later = (x.flatten(2).mT for x in same_size(*map(upcast, maps)))  # [B, HW, C]
        matrices.append(column_products(later, earlier) / earlier.shape[1])
    return matrices
