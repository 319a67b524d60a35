"""Computations whose form depends on the device.

On a CPU these functions issue the operations whose results are in published records, to the last
bit. On a GPU they issue fewer and larger operations, each with a deterministic implementation. Both
forms compute the same values; they differ in rounding only.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor

_forced: ContextVar[bool] = ContextVar("forms for GPUs on every device", default=False)


def on_gpu(x: Tensor) -> bool:
    """Return whether to use the form for GPUs: if ``x`` is on one, or within ``gpu_forms``."""
    return x.is_cuda or _forced.get()


@contextmanager
def gpu_forms() -> Iterator[None]:
    """Use the forms for GPUs on every device, to test them and count their operations on a CPU."""
    token = _forced.set(True)
    try:
        yield
    finally:
        _forced.reset(token)


def together(
    function: Callable[[Tensor], Tensor], s: Sequence[Tensor], t: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Apply a function of the student's and of the teacher's matrices.

    On a GPU it is applied once to the stack of all matrices, because operations on matrices of this
    size take as long as their launch. On a CPU it is applied to each matrix.

    Args:
        function: [..., B, B] -> [..., X]; it must treat the leading dimensions as a batch.
        s: the student's, each [B, B].
        t: the teacher's, each [B, B]; constants.

    Returns:
        The results for ``s`` and for ``t``; the latter pass no gradient.
    """
    if not on_gpu(s[0]):
        return [function(x) for x in s], [function(x) for x in t]
    student, teacher = function(torch.stack([*s, *t])).split((len(s), len(t)))
    return list(student.unbind()), list(teacher.detach().unbind())


def batched(function: Callable[..., Tensor], *arguments: Sequence[Tensor]) -> Tensor:
    """Apply a function to the first of each argument's tensors, to the second, and so on.

    On a GPU it is applied once, to stacks.

    Args:
        function: from tensors [..., B, B] to one of [...].
        arguments: as many tensors, n, of equal shape in each.

    Returns:
        The results, [n].
    """
    if on_gpu(arguments[0][0]):
        return function(*(torch.stack(list(each)) for each in arguments))
    return torch.stack([function(*each) for each in zip(*arguments, strict=True)])


def pool(x: Tensor, height: int, width: int) -> Tensor:
    """Average maps over cells of equal size, [B, C, H, W] -> [B, C, height, width].

    If sizes do not divide, neighbouring cells overlap, as in ``F.adaptive_avg_pool2d``. Methods use
    this function instead, because the backward pass of that function is not deterministic on GPUs.
    On a CPU the bits are those of that function.
    """
    rows, columns = x.shape[2] // height, x.shape[3] // width
    divides = x.shape[2] % height == 0 and x.shape[3] % width == 0
    if height == width == 1:
        # On a CPU torch gives the mean of maps in channels_last the strides of such maps.
        return x.mean((2, 3), keepdim=True) if on_gpu(x) else F.adaptive_avg_pool2d(x, 1)
    if divides and (on_gpu(x) or _power_of_two(rows * columns)):
        return F.avg_pool2d(x, (rows, columns))
    return _weighted_pool(x, height, width) if on_gpu(x) else _adaptive_pool(x, height, width)


def _power_of_two(size: int) -> bool:
    """Return whether the division by a cell's size is exact: both poolings have the same bits."""
    return size & (size - 1) == 0


def _adaptive_pool(x: Tensor, height: int, width: int) -> Tensor:
    return F.adaptive_avg_pool2d(x, (height, width))


def _weighted_pool(x: Tensor, height: int, width: int) -> Tensor:
    """Pool by two matrix products, whose backward pass is deterministic on GPUs."""
    with torch.autocast(x.device.type, enabled=False):
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        by_row, by_column = (
            _cell_weights(n, cells, wide)
            for n, cells in zip(wide.shape[2:], (height, width), strict=True)
        )
        return (by_row @ wide @ by_column.mT).to(x.dtype)


def _cell_weights(n: int, cells: int, like: Tensor) -> Tensor:
    """Return each cell's weights of n positions, [cells, n]; made on the device, without a wait."""
    cell = torch.arange(cells, device=like.device)[:, None]
    position = torch.arange(n, device=like.device)
    inside = (position >= cell * n // cells) & (position * cells < (cell + 1) * n)
    return inside.to(like) / inside.sum(1, keepdim=True)
