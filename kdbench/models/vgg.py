"""VGG with batch norm and one linear layer (``vgg13``), and a three-block variant (``v8w16``).

Stages are block outputs after the last ReLU and before pooling; preacts are the batch norm outputs
before that ReLU. ``vgg*`` has five blocks: the first is the stem, the others are the four stages,
of 16, 8, 4 and 4 pixels for a 32x32 image. ``v*`` has three blocks, which are the three stages; the
first is the stem, too.

Source: Simonyan & Zisserman, ICLR 2015 (arXiv:1409.1556); batch norm and names as in RepDistiller.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Features
from kdbench.models.network import Network, he_normal


class VGG(Network):
    """Blocks of 3x3 convolutions; 2x2 max-pooling after the first ``pools`` blocks.

    Args:
        blocks: widths of each block's convolutions.
        pools: number of blocks followed by pooling.
        first_stage: index of the block that is ``stages[0]``.
        num_classes: K.
        in_channels: channels of an image.
    """

    head_name = "classifier"

    def __init__(
        self,
        *,
        blocks: Sequence[Sequence[int]],
        pools: int,
        first_stage: int,
        num_classes: int,
        in_channels: int,
    ) -> None:
        super().__init__(in_channels)
        self.pools, self.first_stage, self.min_size = pools, first_stage, 2**pools
        self.num_blocks = len(blocks)
        width = in_channels
        for i, widths in enumerate(blocks):
            self.add_module(f"block{i}", _block(width, widths))
            width = widths[-1]
        self.classifier = nn.Linear(width, num_classes)
        he_normal(self)
        nn.init.normal_(self.classifier.weight, 0.0, 0.01)
        nn.init.zeros_(self.classifier.bias)

    def describe(self, images: Tensor) -> Features:
        x = images
        maps, before = [], []
        for i, block in enumerate(self.trunk()):
            x = F.max_pool2d(x, 2) if 0 < i <= self.pools else x
            before.append(block(x))
            x = F.relu(before[-1])
            maps.append(x)
        return self.finish(maps[0], maps[self.first_stage :], before[self.first_stage :], x)

    def trunk(self) -> list[nn.Module]:
        return [self.get_submodule(f"block{i}") for i in range(self.num_blocks)]


def _block(inputs: int, widths: Sequence[int]) -> nn.Sequential:
    """Build a block of convolution, batch norm, ReLU layers, without the last ReLU."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers[:-1])
