"""ResNets for small images: three stages of post-activation basic blocks (``resnet8x4``).

Stages are maps after a block's last ReLU; preacts are the sums before that ReLU.

Source: He et al., CVPR 2016 (arXiv:1512.03385), section 4.2; widths as in RepDistiller.
"""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.models.network import Lower, Network, he_normal, norm_in


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, [B, C, H, W] to the sum before its ReLU."""

    conv_bn = (("conv1", "bn1"), ("conv2", "bn2"))

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        y += x if self.downsample is None else self.downsample(x)
        return y


class ResNet(Network):
    """``depth = 6n + 2``: n basic blocks in each of three stages.

    Args:
        depth: number of weighted layers, without shortcuts.
        channels: widths of the stem and of the three stages.
        num_classes: K.
        in_channels: channels of an image.
    """

    head_name = "fc"
    parts = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",))
    conv_bn: ClassVar = (("conv1", "bn1"),)

    def __init__(
        self,
        *,
        depth: int,
        channels: tuple[int, int, int, int],
        num_classes: int,
        in_channels: int,
    ) -> None:
        super().__init__(in_channels)
        n = (depth - 2) // 6
        stem, first, second, third = channels
        self.conv1 = nn.Conv2d(in_channels, stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layer1 = _layer(n, stem, first, stride=1)
        self.layer2 = _layer(n, first, second, stride=2)
        self.layer3 = _layer(n, second, third, stride=2)
        self.fc = nn.Linear(third, num_classes)
        he_normal(self)

    def begin(self, images: Tensor) -> Lower:
        return Lower(F.relu(self.bn1(self.conv1(images))))

    def norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        return tuple(norm_in(layer[-1], "bn2") for layer in (self.layer1, self.layer2, self.layer3))


def _layer(n: int, inputs: int, outputs: int, *, stride: int) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(n - 1)))
