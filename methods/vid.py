"""Variational information distillation (Ahn et al., CVPR 2019, arXiv:1904.05835)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Batch, Features, Method, Setup
from kdbench.tensors import pairs, same_size, sum_squares, upcast


class VID(Method):
    """Maximise a Gaussian lower bound on the mutual information of student and teacher stages.

    The term contains the log-variance, so it may be negative.

    Args:
        variance: initial variance of every teacher channel.
        eps: smallest variance.
    """

    family = "feature map"

    def __init__(self, setup: Setup, *, variance: float = 5.0, eps: float = 1e-5) -> None:
        super().__init__(setup)
        self.parts = nn.ModuleList(
            Gaussian(a.shape[1], b.shape[1], variance, eps)
            for a, b in pairs(setup.student.stages, setup.teacher.stages)
        )

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        matched = pairs(s.stages, t.stages)
        return torch.stack(
            [part(*same_size(a, b)) for part, (a, b) in zip(self.parts, matched, strict=True)]
        ).sum()


class Gaussian(nn.Module):
    """Negative log-likelihood of a teacher map given the student's, one variance per channel."""

    def __init__(self, inputs: int, outputs: int, variance: float, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.regressor = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 1, bias=False),
        )
        # softplus(log_scale) + eps is the variance.
        self.log_scale = nn.Parameter(torch.full((outputs,), math.log(math.expm1(variance - eps))))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the negative log-likelihood, [B, C_s, H, W], [B, C_t, H, W] -> scalar."""
        error = upcast(self.regressor(a)) - upcast(b)
        variance = F.softplus(self.log_scale) + self.eps  # [C_t]
        mean_error = sum_squares(error, 0, 2, 3) / error[:, 0].numel()
        return 0.5 * (mean_error / variance + variance.log()).mean()
