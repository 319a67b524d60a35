"""ShuffleNet V1 (three groups) and V2 as the distillation benchmarks use them on small images.

V1: stages are maps after a block's last ReLU, preacts the maps before that ReLU. V2: stages are the
shuffled outputs of a stage's last block. Preacts are the block's two halves before shuffling, the
right half before its ReLU. So the channel order differs, and the left half is already rectified.

Source: Zhang et al., CVPR 2018 (arXiv:1707.01083); Ma et al., ECCV 2018 (arXiv:1807.11164); the
1x1 stem, strides and names as in RepDistiller.
"""

from collections.abc import Iterable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Features
from kdbench.models.network import Lower, Network, norm_in

STEM = 24


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave the channels of the groups, [B, C, H, W] to the same shape."""
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


class BlockV1(nn.Module):
    """Grouped 1x1, shuffle, depthwise 3x3, grouped 1x1; the output is before the last ReLU."""

    conv_bn = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.groups = 1 if inputs == STEM else 3
        grown = outputs - inputs if stride == 2 else outputs  # the pooled input is the rest
        mid = grown // 4
        self.conv1 = nn.Conv2d(inputs, mid, 1, groups=self.groups, bias=False)
        self.bn1 = nn.BatchNorm2d(mid)
        self.conv2 = _depthwise(mid, stride)
        self.bn2 = nn.BatchNorm2d(mid)
        self.conv3 = nn.Conv2d(mid, grown, 1, groups=3, bias=False)
        self.bn3 = nn.BatchNorm2d(grown)

    def forward(self, x: Tensor) -> Tensor:
        y = shuffle(F.relu(self.bn1(self.conv1(x))), self.groups)
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        if self.stride == 1:
            return y + x
        return torch.cat([y, F.avg_pool2d(x, 3, stride=2, padding=1)], 1)


class ShuffleNetV1(Network):
    """Three stages of 4, 8, 4 blocks with 240, 480, 960 channels."""

    head_name = "linear"
    parts = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",))
    conv_bn: ClassVar = (("conv1", "bn1"),)

    def __init__(self, *, num_classes: int, in_channels: int) -> None:
        super().__init__(in_channels)
        self.conv1 = nn.Conv2d(in_channels, STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.layer1 = _layer_v1(4, STEM, 240)
        self.layer2 = _layer_v1(8, 240, 480)
        self.layer3 = _layer_v1(4, 480, 960)
        self.linear = nn.Linear(960, num_classes)

    def begin(self, images: Tensor) -> Lower:
        return Lower(F.relu(self.bn1(self.conv1(images))))

    def norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        return tuple(norm_in(layer[-1], "bn3") for layer in (self.layer1, self.layer2, self.layer3))


class DownBlockV2(nn.Module):
    """Two branches of stride 2, each with half of the output channels, before their last ReLU."""

    conv_bn = tuple((f"conv{i}", f"bn{i}") for i in range(1, 6))

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.conv1 = _depthwise(inputs, stride=2)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv2 = nn.Conv2d(inputs, half, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(inputs, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = _depthwise(half, stride=2)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = nn.Conv2d(half, half, 1, bias=False)
        self.bn5 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map [B, C, H, W] to the rectified left half and to the right half before its ReLU."""
        left = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        y = F.relu(self.bn3(self.conv3(x)))
        y = self.bn4(self.conv4(y))
        return F.relu(left), self.bn5(self.conv5(y))


class BasicBlockV2(nn.Module):
    """1x1, depthwise 3x3, 1x1 on half of the channels; the other half passes unchanged."""

    conv_bn = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = nn.Conv2d(half, half, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = _depthwise(half, stride=1)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map [B, C, H, W] to the unchanged half and to the other half before its last ReLU."""
        kept, y = x.chunk(2, 1)
        y = F.relu(self.bn1(self.conv1(y)))
        y = self.bn2(self.conv2(y))
        return kept, self.bn3(self.conv3(y))


class ShuffleNetV2(Network):
    """Three stages of 4, 8, 4 blocks and a last 1x1 convolution.

    Args:
        channels: widths of the three stages and of the last convolution.
        num_classes: K.
        in_channels: channels of an image.
    """

    head_name = "linear"
    parts = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",))
    conv_bn: ClassVar = (("conv1", "bn1"), ("conv2", "bn2"))

    def __init__(
        self, *, channels: tuple[int, int, int, int], num_classes: int, in_channels: int
    ) -> None:
        super().__init__(in_channels)
        first, second, third, last = channels
        self.conv1 = nn.Conv2d(in_channels, STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.layer1 = _layer_v2(4, STEM, first)
        self.layer2 = _layer_v2(8, first, second)
        self.layer3 = _layer_v2(4, second, third)
        self.conv2 = nn.Conv2d(third, last, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(last)
        self.linear = nn.Linear(last, num_classes)

    def begin(self, images: Tensor) -> Lower:
        return Lower(F.relu(self.bn1(self.conv1(images))))

    def stage(self, lower: Lower) -> Lower:
        blocks = self.next_module(lower)
        assert isinstance(blocks, nn.Sequential)
        return lower.then(*_run_v2(blocks, lower.last))

    def end(self, lower: Lower) -> Features:
        return self.finish(lower, F.relu(self.bn2(self.conv2(lower.last))))

    def norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        return None, None, None  # only half of a map comes from the last block's batch norm


def _run_v2(blocks: Iterable[nn.Module], x: Tensor) -> tuple[Tensor, Tensor]:
    """Return a stage's shuffled output, and its last block's halves before shuffle and ReLU."""
    left = right = x
    for block in blocks:
        left, right = block(x)
        x = shuffle(torch.cat([left, F.relu(right)], 1), 2)
    return x, torch.cat([left, right], 1)


def _depthwise(channels: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, stride=stride, padding=1, groups=channels, bias=False)


def _layer_v1(n: int, inputs: int, outputs: int) -> nn.Sequential:
    first = BlockV1(inputs, outputs, stride=2)
    return nn.Sequential(first, *(BlockV1(outputs, outputs, stride=1) for _ in range(n - 1)))


def _layer_v2(n: int, inputs: int, outputs: int) -> nn.Sequential:
    first = DownBlockV2(inputs, outputs)
    return nn.Sequential(first, *(BasicBlockV2(outputs) for _ in range(n - 1)))
