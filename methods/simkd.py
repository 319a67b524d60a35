"""SimKD: the reused teacher classifier (Chen et al., CVPR 2022, arXiv:2203.14001), Eq. 3.

The student's own classifier is neither trained nor used: the teacher's classifier predicts from the
projected features. Deployment needs the student's trunk, the projector and this classifier.
"""

import copy
from collections.abc import Sequence

from torch import Tensor, nn

from kdbench.method import Batch, Features, Incompatible, Method, Objective, Setup
from kdbench.tensors import mean_square, pool, same_size, upcast


class SimKD(Method):
    """Project the student's last map onto the teacher's, and reuse the teacher's classifier.

    Args:
        factor: ratio of the teacher's channels to the projector's inner channels.
    """

    family = "feature map"
    objective = Objective(gamma=0.0, alpha=0.0)

    def __init__(self, setup: Setup, *, factor: int = 2) -> None:
        super().__init__(setup)
        c_s = setup.student.stages[-1].shape[1]
        _, c_t, height, width = setup.teacher.stages[-1].shape
        head = setup.teacher_head
        if head is None:
            raise Incompatible("SimKD reuses the teacher's classifier, but there is none")
        if isinstance(head, nn.Linear) and head.in_features != c_t:
            raise Incompatible(
                f"SimKD: the teacher's last stage has {c_t} channels, "
                f"its classifier takes {head.in_features}"
            )
        if c_t < factor:
            raise Incompatible(f"SimKD: factor {factor} is more than the teacher's {c_t} channels")
        m = c_t // factor
        self.size = (height, width)
        self.head = copy.deepcopy(head).requires_grad_(False)
        self.transfer = nn.Sequential(
            nn.Conv2d(c_s, m, 1, bias=False),
            nn.BatchNorm2d(m),
            nn.ReLU(inplace=True),
            nn.Conv2d(m, m, 3, padding=1, bias=False),
            nn.BatchNorm2d(m),
            nn.ReLU(inplace=True),
            nn.Conv2d(m, c_t, 1, bias=False),
            nn.BatchNorm2d(c_t),
            nn.ReLU(inplace=True),
        )

    def project(self, s: Features) -> Tensor:
        """Project the student's last map to the teacher's shape, [B, C_t, H, W]."""
        last = upcast(s.stages[-1])
        if last.shape[2] > self.size[0]:
            last = pool(last, *self.size)
        projected: Tensor = self.transfer(last)
        return projected

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        a, b = same_size(upcast(self.project(s)), upcast(t.stages[-1]))
        return mean_square(a - b)

    def predict(self, s: Features) -> Tensor:
        logits: Tensor = self.head(self.project(s).mean((2, 3)))
        return logits

    def deployed(self) -> Sequence[nn.Module]:
        return [self.transfer, self.head]
