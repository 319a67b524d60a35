"""Attention transfer (Zagoruyko & Komodakis, ICLR 2017, arXiv:1612.03928), Eq. 2.

Follows the authors' code, not the paper: squared differences, averaged over samples and positions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Features, Method, Setup
from kdbench.tensors import attention, pairs, same_size, upcast


class AT(Method):
    """Match each stage's spatial attention: the channels' energy, as a unit vector over positions.

    Args:
        p: power of the absolute activations.
    """

    family = "feature map"
    beta = 1000.0

    def __init__(self, setup: Setup, *, p: int = 2) -> None:
        super().__init__(setup)
        if p < 1:
            raise ValueError(f"p is {p}, expected at least 1")
        self.p = p

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        matched = [same_size(a, b) for a, b in pairs(s.stages, t.stages)]
        terms = [F.mse_loss(self.attention_map(a), self.attention_map(b)) for a, b in matched]
        return torch.stack(terms).sum()

    def attention_map(self, x: Tensor) -> Tensor:
        """Return the attention map of a stage, [B, C, H, W] -> [B, H*W], rows of unit length."""
        return attention(upcast(x), self.p)
