"""Class attention transfer (Guo et al., CVPR 2023, arXiv:2304.12777), Eqs. 3 and 4.

A class activation map is the classifier's output at each position of the last map, without bias.
The authors' networks drop the biases of both classifiers. Here networks and logits stay as they
are, and only the maps are without bias.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Features, Method, Objective, Setup
from kdbench.region_logits import classified, last_map, teacher_classifier
from kdbench.tensors import mean_square, pool, unit_rows


class CATKD(Method):
    """Match class activation maps, pooled to a few positions.

    Added to cross-entropy, without the KL term. The weight depends on the pair; the authors' are 15
    for resnet32x4 and resnet8x4 (default), 15 for vgg13 and MobileNetV2, 4.5 for vgg13 and vgg8, 12
    for wrn_40_2 and wrn_16_2, 1.5 for wrn_40_2 and wrn_40_1, 0.7 for resnet56 and resnet20, 1.8 for
    resnet110 and resnet32, 40 for ResNet50 and MobileNetV2, and, with ``grid`` 4, 600 for
    resnet32x4 and a ShuffleNet and 80 for wrn_40_2 and ShuffleV1.

    Args:
        grid: height and width of the pooled maps.
        normalise: scale each pooled map to unit length first, as for class attention transfer
            without labels ("CAT"); its weights are 50 to 400.
        binarise: replace the teacher's maps by 1 where they exceed the mean of their absolute
            values, else 0, before pooling (the paper's ablation).
    """

    family = "feature map"
    beta = 15.0
    objective = Objective(gamma=1.0, alpha=0.0)

    def __init__(
        self, setup: Setup, *, grid: int = 2, normalise: bool = False, binarise: bool = False
    ) -> None:
        super().__init__(setup)
        if grid < 1:
            raise ValueError(f"grid is {grid}, expected at least 1")
        self.classifier = teacher_classifier("CAT-KD", setup)
        assert setup.student_head is not None
        self.student_head = setup.student_head
        self.grid, self.normalise, self.binarise = grid, normalise, binarise

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        a = classified(self.pooled(last_map(s)), self.without_bias)
        b = self.teacher_maps(last_map(t))
        a, b = a.mT, b.mT  # [B, K, positions]
        if self.normalise:
            a, b = unit_rows(a), unit_rows(b)
        return mean_square(a - b)

    def teacher_maps(self, x: Tensor) -> Tensor:
        """Return the teacher's pooled maps, [B, D, H, W] to [B, positions, K]."""
        weight = self.classifier.weight
        assert isinstance(weight, Tensor)
        # Pooling and a linear function commute.
        if not self.binarise:
            return classified(self.pooled(x), lambda rows: F.linear(rows, weight))
        maps = classified(x, lambda rows: F.linear(rows, weight)).mT  # [B, K, H * W]
        ones = (maps > maps.abs().mean(2, keepdim=True)).to(maps.dtype)
        return self.pooled(ones.unflatten(2, x.shape[2:])).flatten(2).mT

    def pooled(self, x: Tensor) -> Tensor:
        """Pool maps to the grid."""
        return pool(x, self.grid, self.grid)

    def without_bias(self, x: Tensor) -> Tensor:
        """Apply the student's classifier without its bias, [..., D] to [..., K]."""
        return self.student_head(x) - self.student_head(torch.zeros_like(x[:1, :1]))
