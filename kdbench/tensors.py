"""Tensor functions that several methods share: pairing stages, resizing, regressors, distances.

A function belongs here as soon as a second method needs it; until then it stays in the method's
file.
"""

import logging
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.device_forms import batched as batched
from kdbench.device_forms import on_gpu as on_gpu
from kdbench.device_forms import pool as pool
from kdbench.device_forms import together as together
from kdbench.method import Incompatible

log = logging.getLogger(__name__)


@cache
def _log_once(message: str) -> None:
    log.info(message)


def pairs(s: Sequence[Tensor], t: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Pair student and teacher stages, shallow first; stages without a partner are unused.

    The reference implementations zip silently; here a difference in depth is logged once.
    """
    n = min(len(s), len(t))
    if len(s) != len(t):
        _log_once(f"student has {len(s)} stages, teacher {len(t)}: the first {n} of each meet")
    return list(zip(s[:n], t[:n], strict=True))


def same_size(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Pool the larger of two maps to the height and width of the smaller; never upsample."""
    if a.shape[-2:] == b.shape[-2:]:
        return a, b
    if a.shape[-2] > b.shape[-2]:
        return pool(a, b.shape[-2], b.shape[-1]), b
    return a, pool(b, a.shape[-2], a.shape[-1])


def unit_rows(x: Tensor, eps: float = 1e-12) -> Tensor:
    """Scale rows to unit length, [B, D] -> [B, D]; rows shorter than ``eps`` become zero.

    These rows have no gradient. The usual clamp divides them by 1e-12, which gives gradients of
    1e10.
    """
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    alive = norm > eps
    return x * alive / torch.where(alive, norm, torch.ones_like(norm))


def attention(x: Tensor, p: int = 2) -> Tensor:
    """Return spatial attention, [B, C, H, W] -> [B, H*W]: channel means of ``|x|^p``, unit norm."""
    energy = sum_squares(x, 1) if p == 2 else x.abs().pow(p).sum(1)
    return F.normalize((energy / x.shape[1]).flatten(1))


def squared_distances(x: Tensor) -> Tensor:
    """Return squared Euclidean distances between rows, [B, D] -> [B, B]; not clamped, diagonal 0.

    The rows are centred first. Distances do not change, but in float32 a common offset of the
    embeddings would cost three digits of the gradient.
    """
    return distances(centred_gram(x))


def centred_gram(x: Tensor) -> Tensor:
    """Return inner products of the centred rows; like distances, the gradient ignores the mean."""
    x = rows(x)
    return gram(x - x.detach().mean(0))


def distances(gram: Tensor) -> Tensor:
    """Return squared distances from inner products, [..., B, B] -> [..., B, B]."""
    square = gram.diagonal(dim1=-2, dim2=-1)
    off = ~torch.eye(gram.shape[-1], dtype=torch.bool, device=gram.device)
    return (square[..., :, None] + square[..., None, :] - 2 * gram) * off


def hint_regressor(s: Tensor, t: Tensor, *, relu: bool = True) -> nn.Sequential:
    """Build FitNets' regressor from a student map to a teacher map: conv, BN[, ReLU].

    Args:
        s: student map of a dry run, [B, C_s, h_s, w_s].
        t: teacher map of a dry run, [B, C_t, h_t, w_t].
        relu: end in a ReLU.

    Returns:
        ``Sequential(conv=..., bn=...[, relu=...])``. The convolution has a bias. Its size is 3x3
        stride 2 if the student map is twice as large, transposed 4x4 stride 2 if half as large,
        unpadded ``1 + h_s - h_t`` if otherwise larger or equal, else 3x3 at the student's size
        (pool the teacher's map in this case).

    Source: Romero et al., ICLR 2015 (arXiv:1412.6550); sizes as in RepDistiller and SemCKD.
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
    """Convert half precision to float32, for sums that half precision is too coarse for."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def rows(x: Tensor) -> Tensor:
    """Flatten samples to rows, [B, ...] -> [B, D], in memory order, so that maps are not copied."""
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        x = x.permute(0, 2, 3, 1)
    return x.flatten(1)


def gram(x: Tensor) -> Tensor:
    """Return inner products of samples, [B, ...] -> [B, B]; float32 or wider, even in autocast."""
    with torch.autocast(x.device.type, enabled=False):
        return row_products(rows(upcast(x)))


def row_products(x: Tensor) -> Tensor:
    """Return ``x @ x.mT``, [..., N, D] -> [..., N, N]; its backward pass is one product."""
    product: Tensor = _RowProducts.apply(x)
    return product


def column_products(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a.mT @ b``, [..., L, C], [..., L, D] -> [..., C, D].

    The gradients have the memory order of ``a`` and ``b``. For maps in channels_last, a gradient in
    another order would slow down the network's whole backward pass.
    """
    product: Tensor = _ColumnProducts.apply(a, b)
    return product


def sum_squares(x: Tensor, *dims: int) -> Tensor:
    """Sum squares over dimensions; the gradient is one product in the memory order of ``x``."""
    total: Tensor = _SumSquares.apply(x, dims)
    return total


def mean_square(gap: Tensor) -> Tensor:
    """Return the mean of the squares, a scalar.

    For maps, use this rather than ``F.mse_loss``: on a CPU, the gradient of ``F.mse_loss`` is never
    in channels_last, which slows down the network's whole backward pass.
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
    """Return a context without autocast on the device of ``x``, for sums of ``upcast`` tensors."""
    return torch.autocast(x.device.type, enabled=False)


def one_of(what: str, value: str, *accepted: str) -> str:
    """Return ``value`` if it is accepted.

    Raises:
        ValueError: it is not; the message names the argument ``what`` and the accepted values.
    """
    if value not in accepted:
        raise ValueError(f"{what} is {value!r}, expected {' or '.join(map(repr, accepted))}")
    return value


def zero(x: Tensor) -> Tensor:
    """Return a scalar 0 with a zero gradient to ``x``, as the value of an empty term."""
    return upcast(x).sum() * 0.0


def squared_gaps(x: Tensor) -> Tensor:
    """Return ``squared_distances`` with rounding noise set to 0, without a gradient there.

    If two rows coincide, their inner products leave noise of some epsilons of their squared
    lengths; its square root or inverse would be meaningless.
    """
    return gaps(centred_gram(x), torch.finfo(x.dtype).eps)


def gaps(gram: Tensor, epsilon: float) -> Tensor:
    """Return ``squared_gaps`` from the inner products of centred rows, [..., B, B].

    ``epsilon`` is the spacing of floating-point numbers near 1 in the rows.
    """
    square, length = distances(gram), gram.detach().diagonal(dim1=-2, dim2=-1)
    noise = 8 * epsilon * (length[..., :, None] + length[..., None, :])
    return square * (square > noise)


def affinity(x: Tensor, eps: float) -> Tensor:
    """Return cosine affinities ``(cos + 1) / 2`` of the rows, in [0, 1], [B, ...] -> [B, B].

    Rows are divided by ``length + eps``; an all-zero row has cosine 0 and no gradient.
    """
    return affinities(gram(x), eps)


def affinities(gram: Tensor, eps: float) -> Tensor:
    """Return ``affinity`` from inner products, [..., B, B] -> [..., B, B]."""
    square = gram.diagonal(dim1=-2, dim2=-1)
    alive = square > 1e-24
    inverse = alive / (torch.where(alive, square, torch.ones_like(square)).sqrt() + eps)
    return (gram * inverse[..., :, None] * inverse[..., None, :] + 1) / 2


def standardise(logits: Tensor) -> Tensor:
    """Scale each sample's logits to mean 0 and standard deviation 1, [B, K] -> [B, K].

    Equal logits become zeros, without a gradient. The deviation divides by K, as in the paper; the
    authors' code divides by K - 1.

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
    """Return the scaled KL divergence, ``T^2 / B * sum p_t (log p_t - log p_s)``, a scalar.

    Args:
        student_logits: [B, K].
        teacher_logits: [B, K].
        temperature: T.

    Source: Hinton, Vinyals, Dean, NIPS workshop 2014 (arXiv:1503.02531), section 2.
    """
    log_s = F.log_softmax(upcast(student_logits) / temperature, dim=1)
    log_t = F.log_softmax(upcast(teacher_logits) / temperature, dim=1)
    return F.kl_div(log_s, log_t, reduction="batchmean", log_target=True) * temperature**2
