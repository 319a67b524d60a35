"""Plain losses on feature maps."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Features

from .loss import Loss


class FitNets(Loss):
    """Romero et al., ICLR 2015."""

    beta = 100.0

    def __init__(self, s: Features, t: Features, n: int) -> None:
        super().__init__(s, t, n)
        self.conv = nn.Conv2d(s.stages[0].shape[1], t.stages[0].shape[1], 1)
        self.bn = nn.BatchNorm2d(t.stages[0].shape[1])

    def forward(self, s: Features, t: Features, index: Tensor, drawn: Tensor) -> Tensor:
        return F.mse_loss(F.relu(self.bn(self.conv(s.stages[0]))), t.stages[0])


class AT(Loss):
    """Zagoruyko and Komodakis, ICLR 2017."""

    beta = 1000.0

    def forward(self, s: Features, t: Features, index: Tensor, drawn: Tensor) -> Tensor:
        total = s.logits.new_zeros(())
        for a, b in zip(s.stages, t.stages, strict=True):
            total = total + (energy(a) - energy(b)).pow(2).mean()
        return total


def energy(x: Tensor) -> Tensor:
    """Return the attention map, [B, C, H, W] -> [B, H*W]."""
    return F.normalize(x.pow(2).mean(1).view(x.size(0), -1))


class VID(Loss):
    """Ahn et al., CVPR 2019."""

    def __init__(self, s: Features, t: Features, n: int) -> None:
        super().__init__(s, t, n)
        self.parts, self.scales = nn.ModuleList(), nn.ParameterList()
        for a, b in zip(s.stages, t.stages, strict=True):
            c = b.shape[1]
            self.parts.append(
                nn.Sequential(
                    nn.Conv2d(a.shape[1], c, 1, bias=False),
                    nn.ReLU(),
                    nn.Conv2d(c, c, 1, bias=False),
                    nn.ReLU(),
                    nn.Conv2d(c, c, 1, bias=False),
                )
            )
            self.scales.append(nn.Parameter(torch.full((c,), 5.0).expm1().log()))

    def forward(self, s: Features, t: Features, index: Tensor, drawn: Tensor) -> Tensor:
        total = s.logits.new_zeros(())
        for part, scale, a, b in zip(self.parts, self.scales, s.stages, t.stages, strict=True):
            variance = (torch.log(1 + torch.exp(scale)) + 1e-5).view(1, -1, 1, 1)
            total = total + 0.5 * ((part(a) - b) ** 2 / variance + torch.log(variance)).mean()
        return total


class FT(Loss):
    """Kim et al., NeurIPS 2018, as benchmarks compare it."""

    beta = 200.0

    def __init__(self, s: Features, t: Features, n: int) -> None:
        super().__init__(s, t, n)
        a, b = s.stages[-1].shape[1], t.stages[-1].shape[1]
        self.encoder = convs((b, b, b // 2, b // 2), norm=False).requires_grad_(False)
        self.translator = convs((a, a, b // 2, b // 2), norm=True)

    def forward(self, s: Features, t: Features, index: Tensor, drawn: Tensor) -> Tensor:
        a, b = self.translator(s.stages[-1]), self.encoder(t.stages[-1]).detach()
        return (energy(a) - energy(b)).abs().mean()


def convs(channels: tuple[int, ...], norm: bool) -> nn.Sequential:
    """Build 3x3 convolutions, each followed by a leaky ReLU."""
    layers: list[nn.Module] = []
    for a, b in pairwise(channels):
        layers.append(nn.Conv2d(a, b, 3, padding=1))
        layers += [nn.BatchNorm2d(b)] if norm else []
        layers.append(nn.LeakyReLU(0.1, inplace=True))
    return nn.Sequential(*layers)


class NST(Loss):
    """Huang and Wang, 2017: a kernel of every channel with every other, element by element."""

    beta = 50.0

    def forward(self, s: Features, t: Features, index: Tensor, drawn: Tensor) -> Tensor:
        total = s.logits.new_zeros(())
        for a, b in zip(s.stages, t.stages, strict=True):
            a, b = (F.normalize(x.reshape(x.size(0), x.size(1), -1), dim=2) for x in (a, b))
            own, cross = kernel(a, a), kernel(a, b)
            total = total + kernel(b, b).detach().mean() + own.mean() - 2 * cross.mean()
        return total


def kernel(a: Tensor, b: Tensor) -> Tensor:
    """Return squared inner products of all channels, [B, C, P], [B, D, P] -> [B, C, D]."""
    return (a.unsqueeze(2) * b.unsqueeze(1)).sum(-1).pow(2)


class SemCKD(Loss):
    """Chen et al., AAAI 2021: every student stage onto every teacher stage, pair by pair."""

    beta = 400.0

    def __init__(self, s: Features, t: Features, n: int, batch: int = 64) -> None:
        super().__init__(s, t, n)
        self.keys = nn.ModuleList(mlp(batch) for _ in t.stages)
        self.queries = nn.ModuleList(mlp(batch) for _ in s.stages)
        self.regressors = nn.ModuleList(
            nn.ModuleList(regressor(a.shape[1], b.shape[1]) for b in t.stages) for a in s.stages
        )

    def forward(self, s: Features, t: Features, index: Tensor, drawn: Tensor) -> Tensor:
        queries = [f(self_similarity(x)) for f, x in zip(self.queries, s.stages, strict=True)]
        keys = [f(self_similarity(x)) for f, x in zip(self.keys, t.stages, strict=True)]
        q, k = (F.normalize(torch.stack(x, 1), dim=2) for x in (queries, keys))
        attention = torch.bmm(q, k.transpose(1, 2)).softmax(2)
        total = s.logits.new_zeros(())
        for i, a in enumerate(s.stages):
            for j, b in enumerate(t.stages):
                size = min(a.shape[2], b.shape[2])
                mine = F.adaptive_avg_pool2d(a, size) if a.shape[2] > size else a
                target = F.adaptive_avg_pool2d(b, size) if b.shape[2] > size else b
                projected = self.regressors[i][j](mine)  # type: ignore[index]
                gap = F.mse_loss(projected, target, reduction="none").reshape(len(a), -1).mean(1)
                total = total + (attention[:, i, j] * gap).sum()
        return total / (len(index) * len(s.stages))


def self_similarity(x: Tensor) -> Tensor:
    """Return inner products of all samples, [B, C, H, W] -> [B, B]."""
    x = x.reshape(len(x), -1)
    return x @ x.t()


def mlp(batch: int) -> nn.Sequential:
    """Build a query or key network."""
    return nn.Sequential(nn.Linear(batch, batch // 2), nn.ReLU(), nn.Linear(batch // 2, batch // 4))


def regressor(a: int, b: int) -> nn.Sequential:
    """Build 1x1, 3x3 and 1x1 convolutions with batch norm."""
    return nn.Sequential(
        nn.Conv2d(a, 2 * b, 1, bias=False),
        nn.BatchNorm2d(2 * b),
        nn.ReLU(inplace=True),
        nn.Conv2d(2 * b, 2 * b, 3, padding=1, bias=False),
        nn.BatchNorm2d(2 * b),
        nn.ReLU(inplace=True),
        nn.Conv2d(2 * b, b, 1, bias=False),
    )
