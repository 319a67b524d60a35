"""What more than one method uses: which stages meet, resizing, normalising, regressors, distances.

A function belongs here when a second method needs it; what one method needs stays in its file.
"""

import logging
from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Incompatible

log = logging.getLogger(__name__)


@cache
def _say_once(message: str) -> None:
    log.info(message)


def pairs(s: Sequence[Tensor], t: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Which stages meet: shallow first, as many as both have; deeper leftovers are unused.

    The references zip silently; here a difference in depth is logged once.
    """
    n = min(len(s), len(t))
    if len(s) != len(t):
        _say_once(f"student has {len(s)} stages, teacher {len(t)}: the first {n} of each meet")
    return list(zip(s[:n], t[:n], strict=True))


def same_size(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Pool the larger of two maps down to the smaller one's height and width; never upsample."""
    if a.shape[-2:] == b.shape[-2:]:
        return a, b
    if a.shape[-2] > b.shape[-2]:
        return F.adaptive_avg_pool2d(a, (b.shape[-2], b.shape[-1])), b
    return a, F.adaptive_avg_pool2d(b, (a.shape[-2], a.shape[-1]))


def unit_rows(x: Tensor, eps: float = 1e-12) -> Tensor:
    """Rows of unit length, [B, D] -> [B, D]; a row shorter than ``eps`` is zero, with no gradient.

    The usual clamp divides such a row by 1e-12 and sends gradients of 1e10 through it.
    """
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    alive = norm > eps
    return x * alive / torch.where(alive, norm, torch.ones_like(norm))


def attention(x: Tensor, p: int = 2) -> Tensor:
    """Spatial attention, [B, C, H, W] -> [B, H*W]: channel mean of ``|x|^p``, unit length."""
    energy = x.square() if p == 2 else x.abs().pow(p)
    return F.normalize(energy.mean(1).flatten(1))


def squared_distances(x: Tensor) -> Tensor:
    """Squared Euclidean distances between the rows, [B, D] -> [B, B]; not clamped, diagonal 0.

    The rows are centred first: distances do not change, and in float32 a common offset of the
    embeddings would cost three digits of the gradient.
    """
    x = x.flatten(1)
    x = x - x.mean(0)
    gram = x @ x.T
    square = gram.diagonal()
    off = ~torch.eye(len(x), dtype=torch.bool, device=x.device)
    return (square[:, None] + square[None, :] - 2 * gram) * off


def hint_regressor(s: Tensor, t: Tensor, *, relu: bool = True) -> nn.Sequential:
    """FitNets' convolutional regressor from a student's map to a teacher's: conv, BN[, ReLU].

    Args:
        s: student map of a dry run, [B, C_s, h_s, w_s].
        t: teacher map of a dry run, [B, C_t, h_t, w_t].
        relu: end in a ReLU.

    Returns:
        ``Sequential(conv=..., bn=...[, relu=...])``. The convolution has a bias and is the first
        that fits: 3x3 stride 2 when the student is twice as large, transposed 4x4 stride 2 when
        half as large, unpadded ``1 + h_s - h_t`` when larger or equal, else 3x3 at the student's
        size (the teacher's map is then to be pooled).

    Source: Romero et al., ICLR 2015 (arXiv:1412.6550); sizes as RepDistiller and SemCKD.
    """
    (_, c_s, h_s, w_s), (_, c_t, h_t, w_t) = s.shape, t.shape
    conv: nn.Module
    if h_s == 2 * h_t:
        conv = nn.Conv2d(c_s, c_t, 3, stride=2, padding=1)
    elif 2 * h_s == h_t:
        conv = nn.ConvTranspose2d(c_s, c_t, 4, stride=2, padding=1)
    elif h_s >= h_t:
        if w_s < w_t:
            raise Incompatible(f"student map {h_s}x{w_s} against teacher map {h_t}x{w_t}")
        conv = nn.Conv2d(c_s, c_t, (1 + h_s - h_t, 1 + w_s - w_t))
    else:
        conv = nn.Conv2d(c_s, c_t, 3, padding=1)
    layers: dict[str, nn.Module] = {"conv": conv, "bn": nn.BatchNorm2d(c_t)}
    if relu:
        layers["relu"] = nn.ReLU()
    block = nn.Sequential()
    for name, layer in layers.items():
        block.add_module(name, layer)
    return block


def upcast(x: Tensor) -> Tensor:
    """Half precision to float32, anything else as it is: for sums that half would not survive."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def gram(x: Tensor) -> Tensor:
    """Inner products of the samples, [B, ...] -> [B, B]; at least float32, under autocast too."""
    with torch.autocast(x.device.type, enabled=False):
        flat = upcast(x).flatten(1)
        return flat @ flat.T


def exact(x: Tensor) -> torch.autocast:
    """A context without autocast, for small sums of ``upcast`` tensors on ``x``'s device."""
    return torch.autocast(x.device.type, enabled=False)


def one_of(what: str, value: str, *accepted: str) -> str:
    """``value`` itself, if it is accepted; else an error that lists what is."""
    if value not in accepted:
        raise ValueError(f"{what} is {value!r}, expected {' or '.join(map(repr, accepted))}")
    return value


def zero(x: Tensor) -> Tensor:
    """A scalar 0 that a gradient may pass, for a term that is empty."""
    return upcast(x).sum() * 0.0


def squared_gaps(x: Tensor) -> Tensor:
    """``squared_distances``, with what is only rounding set to 0 and cut off from the gradient.

    The rows' inner products leave noise of some epsilons of their squared lengths where two rows
    coincide; a square root or an inverse of it would be nonsense.
    """
    square = squared_distances(x)
    length = (x.detach().flatten(1) - x.detach().flatten(1).mean(0)).square().sum(1)
    noise = 8 * torch.finfo(x.dtype).eps * (length[:, None] + length[None, :])
    return square * (square > noise)


def affinity(x: Tensor, eps: float) -> Tensor:
    """Cosine affinities ``(cos + 1) / 2`` of the rows in [0, 1], [B, ...] -> [B, B].

    Rows are divided by ``length + eps``; an all-zero row has cosine 0 and no gradient.
    """
    x = x.flatten(1)
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    unit = x * (length > 1e-12) / (length + eps)
    return (unit @ unit.T + 1) / 2


def standardise(logits: Tensor) -> Tensor:
    """Logits of each sample with mean 0 and standard deviation 1, [B, K] -> [B, K].

    Equal logits become zeros, without a gradient. The deviation divides by K, as the paper writes
    it; the authors' code divides by K - 1.

    Source: Sun et al., Logit Standardization in Knowledge Distillation, CVPR 2024
    (arXiv:2403.01427), Algorithm 1.
    """
    logits = upcast(logits)
    centred = logits - logits.mean(1, keepdim=True)
    size = logits.detach().abs().amax(1, keepdim=True)
    deviation = torch.linalg.vector_norm(centred, dim=1, keepdim=True) / logits.shape[1] ** 0.5
    alive = deviation > 8 * torch.finfo(logits.dtype).eps * size
    return centred * alive / torch.where(alive, deviation, torch.ones_like(deviation))
