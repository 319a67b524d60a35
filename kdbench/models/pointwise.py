"""Strided 1x1 convolutions of few channels, made safe on CPUs.

PyTorch's CPU kernels (oneDNN) compute the weight gradient of a strided 1x1 convolution through a
workspace that is too small if the layer has fewer input channels than a vector register holds
numbers (uxlfoundation/oneDNN#6035). The kernel writes past the workspace: the process crashes, or
the gradient is wrong. Selecting the pixels before the convolution avoids that kernel. The sums are
the same, in the same order.
"""

from typing import TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)
REGISTER = 16
"""float32 numbers in the widest vector register of a CPU (AVX-512, SVE-512)."""


class StridedPointwise(nn.Conv2d):
    """A 1x1 convolution with a stride; on CPUs it subsamples the image, then convolves.

    Parameters, buffers and state dict are those of ``nn.Conv2d``.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C', ceil(H / stride), ceil(W / stride)]."""
        if x.device.type not in ("cpu", "meta"):
            return super().forward(x)
        rows, columns = self.stride
        return F.conv2d(x[..., ::rows, ::columns], self.weight, self.bias, groups=self.groups)


def replace_strided_pointwise(module: M) -> M:
    """Make every affected ``nn.Conv2d`` in a network or method a ``StridedPointwise``, in place.

    Affected are 1x1 convolutions with a stride, without padding, with fewer than ``REGISTER`` input
    channels a group. Subclasses of ``nn.Conv2d`` are left alone.

    Returns:
        The module itself.
    """
    for layer in module.modules():
        if type(layer) is nn.Conv2d and _affected(layer):
            layer.__class__ = StridedPointwise
    return module


def _affected(layer: nn.Conv2d) -> bool:
    return (
        layer.kernel_size == (1, 1)
        and max(layer.stride) > 1
        and layer.padding in ((0, 0), "valid")
        and layer.in_channels // layer.groups < REGISTER
    )
