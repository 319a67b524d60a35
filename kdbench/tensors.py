"""What more than one method uses: which stages meet, resizing, normalising, regressors, distances.

A function belongs here when a second method needs it; what one method needs stays in its file.
"""

import logging
from collections.abc import Sequence
from functools import cache
from typing import Any

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
    energy = sum_squares(x, 1) if p == 2 else x.abs().pow(p).sum(1)
    return F.normalize((energy / x.shape[1]).flatten(1))


def squared_distances(x: Tensor) -> Tensor:
    """Squared Euclidean distances between the rows, [B, D] -> [B, B]; not clamped, diagonal 0.

    The rows are centred first: distances do not change, and in float32 a common offset of the
    embeddings would cost three digits of the gradient.
    """
    return _distances(_centred_gram(x))


def _centred_gram(x: Tensor) -> Tensor:
    """Inner products of the centred rows; as distances do, the gradient ignores the centring."""
    x = rows(x)
    return gram(x - x.detach().mean(0))


def _distances(gram: Tensor) -> Tensor:
    """Squared distances from inner products, [B, B] -> [B, B]."""
    square = gram.diagonal()
    off = ~torch.eye(len(gram), dtype=torch.bool, device=gram.device)
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
        layers["relu"] = nn.ReLU(inplace=True)
    block = nn.Sequential()
    for name, layer in layers.items():
        block.add_module(name, layer)
    return block


def upcast(x: Tensor) -> Tensor:
    """Half precision to float32, anything else as it is: for sums that half would not survive."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def rows(x: Tensor) -> Tensor:
    """Samples as rows, [B, ...] -> [B, D]; maps without a copy, in the order of their memory."""
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        x = x.permute(0, 2, 3, 1)
    return x.flatten(1)


def gram(x: Tensor) -> Tensor:
    """Inner products of the samples, [B, ...] -> [B, B]; at least float32, under autocast too."""
    with torch.autocast(x.device.type, enabled=False):
        return row_products(rows(upcast(x)))


def row_products(x: Tensor) -> Tensor:
    """``x @ x.mT``, [..., N, D] -> [..., N, N], with one product in the backward pass, not two."""
    product: Tensor = _RowProducts.apply(x)
    return product


def column_products(a: Tensor, b: Tensor) -> Tensor:
    """``a.mT @ b``, [..., L, C], [..., L, D] -> [..., C, D].

    Its gradients lie in memory as ``a`` and ``b`` do: where these are maps in channels_last, a
    gradient in another order would slow down all of the network's backward pass.
    """
    product: Tensor = _ColumnProducts.apply(a, b)
    return product


def sum_squares(x: Tensor, *dims: int) -> Tensor:
    """Sum of squares over dimensions; the gradient is one product, in ``x``'s memory order."""
    found: Tensor = _SumSquares.apply(x, dims)
    return found


def mean_square(gap: Tensor) -> Tensor:
    """Mean of the squares, a scalar.

    For maps better than ``F.mse_loss``, whose gradient on a CPU is never in channels_last and slows
    down all of the network's backward pass.
    """
    return sum_squares(gap, *range(gap.dim())) / gap.numel()


class _SumSquares(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dims: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.dims = dims
        return x.square().sum(dims)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        for dim in sorted(ctx.dims):
            grad = grad.unsqueeze(dim)
        return x * (2 * grad), None


class _RowProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x @ x.mT

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return (grad + grad.mT) @ x


class _ColumnProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return a.mT @ b

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        return b @ grad.mT, a @ grad


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
    gram = _centred_gram(x)
    square, length = _distances(gram), gram.detach().diagonal()
    noise = 8 * torch.finfo(x.dtype).eps * (length[:, None] + length[None, :])
    return square * (square > noise)


def affinity(x: Tensor, eps: float) -> Tensor:
    """Cosine affinities ``(cos + 1) / 2`` of the rows in [0, 1], [B, ...] -> [B, B].

    Rows are divided by ``length + eps``; an all-zero row has cosine 0 and no gradient.
    """
    inner = gram(x)
    square = inner.diagonal()
    alive = square > 1e-24
    inverse = alive / (torch.where(alive, square, torch.ones_like(square)).sqrt() + eps)
    return (inner * inverse[:, None] * inverse + 1) / 2


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


def kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Divergence of softened predictions, ``T^2 / B * sum p_t (log p_t - log p_s)``, a scalar.

    Args:
        student_logits: [B, K].
        teacher_logits: [B, K].
        temperature: T.

    Source: Hinton, Vinyals, Dean, NIPS workshop 2014 (arXiv:1503.02531), section 2.
    """
    log_s = F.log_softmax(upcast(student_logits) / temperature, dim=1)
    log_t = F.log_softmax(upcast(teacher_logits) / temperature, dim=1)
    return F.kl_div(log_s, log_t, reduction="batchmean", log_target=True) * temperature**2
