"""Softmax regression representation learning (Yang et al., ICLR 2021; no arXiv version).

As in the SimKD authors' code, the connector acts on the pooled embedding. In the paper, it acts on
the last map before pooling.
"""

import copy

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Batch, Features, Incompatible, Method, Setup
from kdbench.tensors import upcast


class SRRL(Method):
    """Match the teacher's embedding, and the output of its classifier for either embedding."""

    family = "embedding"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        if setup.teacher_head is None:
            raise Incompatible("SRRL uses the teacher's classifier, but there is none")
        if setup.batch_size < 2:
            raise Incompatible("SRRL: batch norm of 1x1 maps needs more than 1 value per channel")
        width_s, width_t = setup.student.embedding.shape[1], setup.teacher.embedding.shape[1]
        self.head = copy.deepcopy(setup.teacher_head).requires_grad_(False)
        self.transfer = nn.Sequential(
            nn.Conv2d(width_s, width_t, 1, bias=False), nn.BatchNorm2d(width_t), nn.ReLU()
        )

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        embedding = self.transfer(upcast(s.embedding)[:, :, None, None]).flatten(1)  # [B, D_t]
        feature = F.mse_loss(upcast(embedding), upcast(t.embedding))
        return feature + F.mse_loss(upcast(self.head(embedding)), upcast(t.logits))
