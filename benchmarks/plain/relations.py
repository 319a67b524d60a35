"""Plain losses on the relations of the samples in a batch."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Features

from .loss import Loss

EPS = 1e-12


class SP(Loss):
    """Tung and Mori, ICCV 2019."""

    beta = 3000.0

    def forward(self, s: Features, t: Features, index: Tensor, drawn: Tensor) -> Tensor:
        a, b = (x.stages[-1].reshape(x.stages[-1].size(0), -1) for x in (s, t))
        gap = F.normalize(a @ a.t()) - F.normalize(b @ b.t())
        return gap.pow(2).sum() / len(a) ** 2


class CC(Loss):
    """Peng et al., ICCV 2019."""

    beta = 0.02

    def __init__(self, s: Features, t: Features, n: int) -> None:
        super().__init__(s, t, n)
        self.embed_s = nn.Linear(s.embedding.shape[1], 128)
        self.embed_t = nn.Linear(t.embedding.shape[1], 128)

    def forward(self, s: Features, t: Features, index: Tensor, drawn: Tensor) -> Tensor:
        delta = (self.embed_s(s.embedding) - self.embed_t(t.embedding)).abs()
        return (delta[:-1] * delta[1:]).sum(1).mean()


class RKD(Loss):
    """Park et al., CVPR 2019: 25 times distances, 50 times angles."""

    def forward(self, s: Features, t: Features, index: Tensor, drawn: Tensor) -> Tensor:
        a, b = s.embedding, t.embedding
        distance = F.smooth_l1_loss(scaled(a), scaled(b))
        return 25 * distance + 50 * F.smooth_l1_loss(angles(a), angles(b))


def scaled(x: Tensor) -> Tensor:
    """Return distances in units of their mean, [B, D] -> [B, B]."""
    distances = gaps(x).clamp(min=EPS).sqrt() * (1 - torch.eye(len(x), device=x.device))
    return distances / distances[distances > 0].mean()


def gaps(x: Tensor) -> Tensor:
    """Return squared distances, [B, D] -> [B, B]."""
    square = x.pow(2).sum(1)
    return square[:, None] + square[None, :] - 2 * x @ x.t()


def angles(x: Tensor) -> Tensor:
    """Return cosines of all angles, [B, D] -> [B, B, B]."""
    sides = F.normalize(x[None, :, :] - x[:, None, :], dim=2)
    return torch.bmm(sides, sides.transpose(1, 2))


class PKT(Loss):
    """Passalis and Tefas, ECCV 2018."""

    beta = 30000.0

    def forward(self, s: Features, t: Features, index: Tensor, drawn: Tensor) -> Tensor:
        a, b = (neighbours(x.embedding, 1e-7) for x in (s, t))
        return (b * torch.log((b + 1e-7) / (a + 1e-7))).mean()


def neighbours(x: Tensor, eps: float) -> Tensor:
    """Return probabilities from cosines, [B, D] -> [B, B]."""
    x = x / (x.norm(dim=1, keepdim=True) + eps)
    near = (x @ x.t() + 1) / 2
    return near / near.sum(1, keepdim=True)


class CRD(Loss):
    """Tian et al., ICLR 2020: scores of the drawn entries of two memory banks."""

    beta = 0.8
    memory1: Tensor
    memory2: Tensor
    z: Tensor

    def __init__(self, s: Features, t: Features, n: int) -> None:
        super().__init__(s, t, n)
        self.embed_s = nn.Linear(s.embedding.shape[1], 128)
        self.embed_t = nn.Linear(t.embedding.shape[1], 128)
        bound = (128 / 3) ** -0.5
        for name in ("memory1", "memory2"):
            self.register_buffer(name, torch.empty(n, 128).uniform_(-bound, bound))
        self.register_buffer("z", torch.full((2,), -1.0))

    def forward(self, s: Features, t: Features, index: Tensor, drawn: Tensor) -> Tensor:
        v1, v2 = F.normalize(self.embed_s(s.embedding)), F.normalize(self.embed_t(t.embedding))
        total = self.side(v1, self.memory2, 0, drawn) + self.side(v2, self.memory1, 1, drawn)
        with torch.no_grad():
            for bank, v in ((self.memory1, v1), (self.memory2, v2)):
                bank[index] = F.normalize(0.5 * bank[index] + 0.5 * v)
        return total

    def side(self, v: Tensor, bank: Tensor, which: int, drawn: Tensor) -> Tensor:
        """Return the noise-contrastive estimation of one side, a scalar."""
        n, k = len(bank), drawn.size(1) - 1
        entries = bank.index_select(0, drawn.view(-1)).view(len(v), k + 1, -1)
        odds = torch.exp(torch.bmm(entries, v.unsqueeze(2)).squeeze(2) / 0.07)
        if self.z[which].item() < 0:
            self.z[which] = odds.mean().item() * n
        odds = odds / self.z[which].item()
        noise = k / n
        own, others = odds[:, :1], odds[:, 1:]
        log_own = torch.log(own / (own + noise + 1e-7))
        log_others = torch.log(noise / (others + noise + 1e-7))
        return -(log_own.sum() + log_others.sum()) / len(v)


class IRG(Loss):
    """Liu et al., CVPR 2019: edges and vertices of the embeddings."""

    beta = 0.005

    def forward(self, s: Features, t: Features, index: Tensor, drawn: Tensor) -> Tensor:
        others = 1 - torch.eye(len(index), device=index.device)
        a, b = (gaps(x.embedding).clamp(min=EPS) * others for x in (s, t))
        edge = F.mse_loss(a / (a.max() + EPS), b / (b.max() + EPS))
        if s.embedding.shape != t.embedding.shape:
            return edge
        return edge + F.mse_loss(s.embedding, t.embedding)


class HKD(Loss):
    """Passalis et al., CVPR 2020: two kernels at every stage."""

    def forward(self, s: Features, t: Features, index: Tensor, drawn: Tensor) -> Tensor:
        parts = [
            jeffreys(a.reshape(len(a), -1), b.reshape(len(b), -1))
            for a, b in zip(s.stages, t.stages, strict=True)
        ]
        return 100 * parts[0] + parts[1] + parts[2]


def jeffreys(a: Tensor, b: Tensor) -> Tensor:
    """Return the Jeffreys divergences of neighbours under a cosine and a Student-t kernel."""
    total = a.new_zeros(())
    for kernel_of in (lambda x: neighbours(x, 1e-6), student_t):
        p, q = kernel_of(a), kernel_of(b)
        total = total + ((q - p) * (torch.log(q) - torch.log(p))).mean()
    return total


def student_t(x: Tensor) -> Tensor:
    """Return probabilities from distances, [B, D] -> [B, B]."""
    near = 1 / (1 + (gaps(x).clamp(min=0) + 1e-6).sqrt())
    return near / near.sum(1, keepdim=True)
