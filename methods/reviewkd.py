"""ReviewKD: knowledge review (Chen et al., CVPR 2021, arXiv:2104.09044), Eqs. 5-7."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Batch, Features, Incompatible, Method, Setup
from kdbench.tensors import mean_square, pool, upcast


class ReviewKD(Method):
    """Fuse the student's deep features into shallower ones and match each with the teacher's.

    Args:
        width: upper limit of the fused maps' channels, as in the authors' code; the maps have as
            many as the student's embedding if that is narrower.
        warmup: epochs over which the term grows linearly to its full weight; 0: none.
    """

    family = "feature map"

    def __init__(self, setup: Setup, *, width: int = 512, warmup: int = 20) -> None:
        super().__init__(setup)
        self.warmup = warmup
        s, t = setup.student, setup.teacher
        if len(s.stages) != len(t.stages):
            shapes = [[list(x.shape[1:]) for x in f.stages] for f in (s, t)]
            raise Incompatible(
                f"ReviewKD needs equal depths: student {shapes[0]}, teacher {shapes[1]}"
            )
        if setup.batch_size < 2:
            raise Incompatible(
                "ReviewKD: batch norm of 1x1 maps needs more than 1 value per channel"
            )
        width = min(width, s.embedding.shape[1])
        matched = zip(levels(s.stages, s), levels(t.preacts, t), strict=True)
        self.abfs = nn.ModuleList(
            Fusion(a.shape[1], width, b.shape[1], deeper=k > 0) for k, (a, b) in enumerate(matched)
        )

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        terms, fused = [], None
        matched = zip(self.abfs, levels(s.stages, s), levels(t.preacts, t), strict=True)
        for fuse, a, b in matched:
            compared, fused = fuse(a, fused, b.shape[2:])
            terms.append(hierarchical(upcast(compared), upcast(b)))
        ramp = min(batch.epoch / self.warmup, 1.0) if self.warmup else 1.0
        return ramp * torch.stack(terms).sum()


def levels(maps: tuple[Tensor, ...], f: Features) -> list[Tensor]:
    """Return the embedding as a 1x1 map, then the given maps from the last to the first."""
    return [f.embedding[:, :, None, None], *reversed(maps)]


class Fusion(nn.Module):
    """Attention-based fusion of a student map with the fused map of the next deeper level."""

    def __init__(self, inputs: int, width: int, outputs: int, *, deeper: bool) -> None:
        super().__init__()
        self.conv1 = convolution(inputs, width, 1)
        self.conv2 = convolution(width, outputs, 3)
        if deeper:
            self.att_conv = nn.Sequential(nn.Conv2d(2 * width, 2, 1), nn.Sigmoid())

    def forward(self, x: Tensor, fused: Tensor | None, size: torch.Size) -> tuple[Tensor, Tensor]:
        """Return the map to match, [B, C_t, *size], and the fused map, [B, W, *size]."""
        y: Tensor = self.conv1(upcast(x))
        if fused is not None:
            share = self.share(y, fused)  # [B, 2, H, W]
            fused = F.interpolate(fused, y.shape[2:], mode="nearest")
            y = Blend.apply(y, fused, share)
        if y.shape[2:] != size:
            y = F.interpolate(y, size, mode="nearest")
        return self.conv2(y), y

    def share(self, y: Tensor, fused: Tensor) -> Tensor:
        """Return the weights of the two maps at every position, [B, 2, H, W].

        This is a 1x1 convolution of both maps at the size of ``y``. The part of ``fused`` is
        computed before enlarging it, which is cheaper.
        """
        weight, bias = self.att_conv[0].parameters()
        ours = F.conv2d(y, weight[:, : y.shape[1]], bias)
        theirs = F.conv2d(fused, weight[:, y.shape[1] :])
        share: Tensor = self.att_conv[1](ours + F.interpolate(theirs, y.shape[2:], mode="nearest"))
        return share


class Blend(torch.autograd.Function):
    """Weighted sum of two maps at every position, [B, W, H, W'] x 2, [B, 2, H, W'].

    The gradient of ``torch.addcmul`` makes one more copy of a map. These maps are the largest of a
    step, and copying them costs as much as a convolution.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, share: Tensor) -> Tensor:
        ctx.save_for_backward(a, b, share)
        return torch.addcmul(a * share[:, :1], b, share[:, 1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, b, share = ctx.saved_tensors
        of_share = [(grad * x).sum(1, keepdim=True) for x in (a, b)]
        to_share = torch.cat(of_share, 1, out=torch.empty_like(share))
        return grad * share[:, :1], grad * share[:, 1:], to_share


def convolution(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Build a convolution with batch norm and the authors' initialisation."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


def hierarchical(a: Tensor, b: Tensor) -> Tensor:
    """Return the weighted mean squared error of two maps and of their poolings to 4, 2, 1."""
    gap = pooled = a - b
    total, weight, weights = mean_square(gap), 1.0, 1.0
    for size in (4, 2, 1):
        if size < gap.shape[2]:
            weight /= 2
            # Averages of equal cells can be pooled again; unequal cells overlap.
            equal = all(length % pooled.shape[2] == 0 for length in gap.shape[2:])
            pooled = pool(pooled if equal else gap, size, size)
            total = total + weight * mean_square(pooled)
            weights += weight
    return total / weights
