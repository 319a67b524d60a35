"""MobileNetV2 as the distillation benchmarks use it on small images: half width, plain ReLU.

Stages are the outputs of groups 1, 2, 4 and 6. These end in a linear bottleneck without a ReLU, so
preacts are the same tensors.

Source: Sandler et al., CVPR 2018 (arXiv:1801.04381), table 2; strides and names as in RepDistiller.
"""

from torch import Tensor, nn

from kdbench.method import Features
from kdbench.models.network import Lower, Network, he_normal, norm_in

GROUPS = (  # expansion, channels, blocks, stride of the first
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STAGES = ((0, 1), (2,), (3, 4), (5, 6))  # groups of each


class InvertedResidual(nn.Module):
    """1x1 up, depthwise 3x3, 1x1 down without activation; adds the input if shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        self.residual = stride == 1 and inputs == outputs
        wide = inputs * expansion
        self.conv = nn.Sequential(
            nn.Conv2d(inputs, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.Conv2d(wide, wide, 3, stride=stride, padding=1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.Conv2d(wide, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return x + y if self.residual else y


class MobileNetV2(Network):
    """Seven groups of inverted residuals, every channel count ``int(c * width)``.

    Args:
        width: factor of the channel counts, at most 1; the last convolution always has 1280.
        num_classes: K.
        in_channels: channels of an image.
    """

    head_name = "classifier.0"
    parts = (("conv1",), *(tuple(f"blocks.{i}" for i in groups) for groups in STAGES))

    def __init__(self, *, width: float, num_classes: int, in_channels: int) -> None:
        super().__init__(in_channels)
        inputs = int(32 * width)
        self.conv1 = nn.Sequential(
            nn.Conv2d(in_channels, inputs, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
        )
        self.blocks = nn.Sequential()
        for expansion, channels, n, stride in GROUPS:
            outputs = int(channels * width)
            first = InvertedResidual(inputs, outputs, stride, expansion)
            rest = (InvertedResidual(outputs, outputs, 1, expansion) for _ in range(n - 1))
            self.blocks.append(nn.Sequential(first, *rest))
            inputs = outputs
        self.conv2 = nn.Sequential(
            nn.Conv2d(inputs, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU()
        )
        self.classifier = nn.Sequential(nn.Linear(1280, num_classes))
        he_normal(self)
        nn.init.normal_(self.head.weight, 0.0, 0.01)
        nn.init.zeros_(self.head.bias)

    def begin(self, images: Tensor) -> Lower:
        return Lower(self.conv1(images))

    def stage(self, lower: Lower) -> Lower:
        x = lower.last
        for name in self.parts[len(lower.stages) + 1]:
            x = self.get_submodule(name)(x)
        return lower.then(x, x)

    def end(self, lower: Lower) -> Features:
        return self.finish(lower, self.conv2(lower.last))

    def norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        lasts = [f"{i}.{GROUPS[i][2] - 1}.conv.7" for *_, i in STAGES]
        return tuple(norm_in(self.blocks, name) for name in lasts)
