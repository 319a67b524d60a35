"""ImageNet-style ResNets on small images: four stages, 3x3 stem, no max-pool (``ResNet50``).

Stages are maps after a block's last ReLU; preacts are the sums before that ReLU.
torchvision's networks of the same depth differ: a 7x7 stem, keys ``downsample`` and ``fc``.

Source: He et al., CVPR 2016 (arXiv:1512.03385), table 1; stem and names as in RepDistiller.
"""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.models.network import Lower, Network, he_normal, norm_in


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, [B, C, H, W] to the sum before its ReLU."""

    expansion = 1
    conv_bn = (("conv1", "bn1"), ("conv2", "bn2"))

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        y += self.shortcut(x)
        return y


class Bottleneck(nn.Module):
    """1x1, strided 3x3, 1x1 to four times the width, and a shortcut; the sum before its ReLU."""

    expansion = 4
    conv_bn = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        y += self.shortcut(x)
        return y


class ImageNetStyleResNet(Network):
    """Four stages of widths 64, 128, 256, 512.

    Args:
        blocks: number of blocks in each stage.
        bottleneck: use bottleneck blocks instead of basic blocks.
        num_classes: K.
        in_channels: channels of an image.
    """

    head_name = "linear"
    parts = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))
    conv_bn: ClassVar = (("conv1", "bn1"),)

    def __init__(
        self,
        *,
        blocks: tuple[int, int, int, int],
        bottleneck: bool,
        num_classes: int,
        in_channels: int,
    ) -> None:
        super().__init__(in_channels)
        block = Bottleneck if bottleneck else BasicBlock
        grow = block.expansion
        self.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _layer(block, blocks[0], 64, 64, stride=1)
        self.layer2 = _layer(block, blocks[1], 64 * grow, 128, stride=2)
        self.layer3 = _layer(block, blocks[2], 128 * grow, 256, stride=2)
        self.layer4 = _layer(block, blocks[3], 256 * grow, 512, stride=2)
        self.linear = nn.Linear(512 * grow, num_classes)
        he_normal(self)

    def begin(self, images: Tensor) -> Lower:
        return Lower(F.relu(self.bn1(self.conv1(images))))

    def norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        last = "bn3" if isinstance(self.layer1[-1], Bottleneck) else "bn2"
        layers = (self.layer1, self.layer2, self.layer3, self.layer4)
        return tuple(norm_in(layer[-1], last) for layer in layers)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    if stride == 1 and inputs == outputs:
        return nn.Sequential()
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
    )


def _layer(
    block: type[BasicBlock] | type[Bottleneck], n: int, inputs: int, width: int, *, stride: int
) -> nn.Sequential:
    first = block(inputs, width, stride)
    rest = (block(width * block.expansion, width, 1) for _ in range(n - 1))
    return nn.Sequential(first, *rest)
