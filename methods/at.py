"""Attention transfer (Zagoruyko & Komodakis, ICLR 2017, arXiv:1612.03928), Eq. 2.

As the authors' code, not the paper: squared differences, averaged over samples and positions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Features, Method, Setup
from kdbench.tensors import attention, pairs, same_size, upcast


class AT(Method):
    """Match where each stage is active: its channels' energy as a unit vector over positions.

    Args:
        p: power of the activations.
    """

    family = "feature map"
    beta = 1000.0

    def __init__(self, setup: Setup, *, p: int = 2) -> None:
        super().__init__(setup)
        if p < 1:
            raise ValueError(f"p is {p}, expected at least 1")
        self.p = p

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        met = [same_size(a, b) for a, b in pairs(s.stages, t.stages)]
        return torch.stack([F.mse_loss(self.where(a), self.where(b)) for a, b in met]).sum()

    def where(self, x: Tensor) -> Tensor:
        """Attention map of a stage, [B, C, H, W] -> [B, H*W], rows of unit length."""
        return attention(upcast(x), self.p)
