"""Similarity-preserving distillation (Tung & Mori, ICCV 2019, arXiv:1907.09682)."""

import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Features, Method
from kdbench.tensors import gram, unit_rows


class SP(Method):
    """Match the similarities between samples of a batch, from the last stage's maps."""

    family = "relation"
    beta = 3000.0

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        return F.mse_loss(similarity(s.stages[-1]), similarity(t.stages[-1]))


def similarity(maps: Tensor) -> Tensor:
    """Return similarities, [B, C, H, W] -> [B, B], in unit rows; zero maps give zero rows."""
    return unit_rows(gram(maps))
