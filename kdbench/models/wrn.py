"""Wide residual networks: three stages of pre-activation blocks (``wrn_40_2``).

Stages are the blocks' sums without batch norm and ReLU, so they can be negative. Preacts are the
outputs of the batch norm that follows: the first of the next stage, or the last of the network.

Source: Zagoruyko & Komodakis, BMVC 2016 (arXiv:1605.07146); no dropout; names as in RepDistiller.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Features
from kdbench.models.network import Lower, Network, he_normal, norm_in


class Block(nn.Module):
    """Batch norm, ReLU, convolution, twice; a convolved shortcut starts after the first ReLU."""

    conv_bn = (("conv1", "bn2"),)

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.convShortcut: nn.Module | None = None
        if inputs != outputs:
            self.convShortcut = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map [B, C, H, W] to the sum and to the first batch norm's output."""
        normed = self.bn1(x)
        h = F.relu(normed)
        y = self.conv2(F.relu(self.bn2(self.conv1(h)), inplace=True))
        return y + (x if self.convShortcut is None else self.convShortcut(h)), normed


class Stage(nn.Module):
    """Blocks of one width; the first has the stride."""

    def __init__(self, n: int, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        first = Block(inputs, outputs, stride)
        self.layer = nn.Sequential(first, *(Block(outputs, outputs, 1) for _ in range(n - 1)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map [B, C, H, W] to the last sum and to the first block's normalised input."""
        entering = x
        for i, block in enumerate(self.layer):
            x, normed = block(x)
            if i == 0:
                entering = normed
        return x, entering


class WideResNet(Network):
    """``depth = 6n + 4``: n blocks in each of three stages of ``width`` times 16, 32, 64 channels.

    Args:
        depth: number of weighted layers.
        width: factor of the channels.
        num_classes: K.
        in_channels: channels of an image.
    """

    head_name = "fc"
    parts = (("conv1",), ("block1",), ("block2",), ("block3",))

    def __init__(self, *, depth: int, width: int, num_classes: int, in_channels: int) -> None:
        super().__init__(in_channels)
        n = (depth - 4) // 6
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.block1 = Stage(n, 16, 16 * width, stride=1)
        self.block2 = Stage(n, 16 * width, 32 * width, stride=2)
        self.block3 = Stage(n, 32 * width, 64 * width, stride=2)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.fc = nn.Linear(64 * width, num_classes)
        he_normal(self)
        nn.init.zeros_(self.fc.bias)

    def begin(self, images: Tensor) -> Lower:
        return Lower(self.conv1(images))

    def stage(self, lower: Lower) -> Lower:
        x, normed = self.next_module(lower)(lower.last)
        # What enters the first stage is the stem, whose pre-activation is not a feature.
        return lower.then(x, normed) if lower.stages else lower.then(x)

    def end(self, lower: Lower) -> Features:
        normed = self.bn1(lower.last)
        complete = lower._replace(preacts=(*lower.preacts, normed))
        return self.finish(complete, F.relu(normed))

    def norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        return tuple(
            norm_in(self, name) for name in ("block2.layer.0.bn1", "block3.layer.0.bn1", "bn1")
        )
