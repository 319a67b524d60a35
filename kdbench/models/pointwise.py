"""Safe replacement on CPUs for strided 1x1 convolutions of few channels.

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
"""Number of float32 values in the widest vector register of a CPU (AVX-512, SVE-512)."""


class StridedPointwise(nn.Conv2d):
    """A 1x1 convolution with a stride that selects the pixels first, then convolves.

    [B, C, H, W] to [B, C', ceil(H / stride), ceil(W / stride)]. Parameters, buffers and state dict
    are those of ``nn.Conv2d``.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        pixels = input[..., :: self.stride[0], :: self.stride[1]]
        return F.conv2d(pixels, weight, bias, groups=self.groups)


def replace_strided_pointwise(module: M) -> M:
    """Make every affected convolution in a network or method a ``StridedPointwise``, in place.

    Affected are 1x1 ``nn.Conv2d`` with a stride, without padding, with fewer than ``REGISTER``
    input channels a group. Subclasses, such as those of ``torch.nn.utils.parametrizations``, keep
    their own methods. Not replaced are layers that override ``_conv_forward`` or do not call it,
    and those compiled by TorchScript.

    Returns:
        The module itself.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d) and _affected(layer):
            layer.__class__ = _replacement(type(layer))
    return module


def _replacement(cls: type[nn.Conv2d]) -> type[nn.Conv2d]:
    if cls is nn.Conv2d:
        return StridedPointwise
    return type(cls.__name__, (StridedPointwise, cls), {"__module__": cls.__module__})


def _affected(layer: nn.Conv2d) -> bool:
    return (
        type(layer)._conv_forward is nn.Conv2d._conv_forward
        and layer.kernel_size == (1, 1)
        and max(layer.stride) > 1
        and layer.padding in ((0, 0), "valid")
        and layer.in_channels // layer.groups < REGISTER
    )
