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

from kdbench.models.network import Lower, Network, he_normal, norm_in


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
        names = [(f"block{i}",) for i in range(len(blocks))]
        self.parts = (names[0], *names[1:]) if first_stage else (names[0], (), *names[1:])
        width = in_channels
        for i, widths in enumerate(blocks):
            self.add_module(f"block{i}", _block(width, widths))
            width = widths[-1]
        self.classifier = nn.Linear(width, num_classes)
        he_normal(self)
        nn.init.normal_(self.classifier.weight, 0.0, 0.01)
        nn.init.zeros_(self.classifier.bias)

    def begin(self, images: Tensor) -> Lower:
        before = self.get_submodule("block0")(images)
        # Where the stem is the first stage, its pre-activation is that of the stage.
        return Lower(F.relu(before), (), () if self.first_stage else (before,))

    def stage(self, lower: Lower) -> Lower:
        i = len(lower.stages) + self.first_stage
        if i == 0:
            return lower.then(lower.stem)
        x = F.max_pool2d(lower.last, 2) if i <= self.pools else lower.last
        before = self.get_submodule(f"block{i}")(x)
        return lower.then(F.relu(before), before)

    def norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        return tuple(
            norm_in(block, str(len(list(block.children())) - 1))
            for block in self.trunk()[self.first_stage :]
        )


def _block(inputs: int, widths: Sequence[int]) -> nn.Sequential:
    """Build a block of convolution, batch norm, ReLU layers, without the last ReLU."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers[:-1])
