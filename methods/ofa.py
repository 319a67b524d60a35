"""One-for-all distillation (Hao et al., NeurIPS 2023, arXiv:2310.19444), for CNNs.

Each student stage gets an exit: a small network that ends in logits. The student and all exits
learn from ``-mean_b sum_k ((p_t,k + 1[k = y])^eps - 1[k = y]) log p_k``. With eps = 1 it is the
cross-entropy with the teacher's prediction; eps > 1 puts more weight on the label y.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.logits import is_label
from kdbench.method import Batch, Features, Method, Objective, Setup
from kdbench.tensors import upcast


class OFA(Method):
    """Match the teacher's predictions with those of the student and of an exit at each stage.

    Added to cross-entropy, without the KL term. The exit of stage i of S has S - i blocks of
    separable convolutions, each of which halves the map and doubles the channels; the last stage's
    has a 1x1 convolution. Then positions are averaged and classified.

    Args:
        own: weight of the loss of the student's logits.
        exits: weight of the sum of the exits' losses.
        eps: exponent, one for all, or one for each stage and a last one for the student's logits.
            The authors use 1.5 on ImageNet.
        tau: temperature of all predictions; the loss has no factor T^2.
    """

    family = "logit"
    objective = Objective(gamma=1.0, alpha=0.0)

    def __init__(
        self,
        setup: Setup,
        *,
        own: float = 1.0,
        exits: float = 1.0,
        eps: tuple[float, ...] = (1.0,),
        tau: float = 1.0,
    ) -> None:
        super().__init__(setup)
        stages = setup.student.stages
        wanted = len(stages) + 1
        if len(eps) not in (1, wanted):
            raise ValueError(f"eps has {len(eps)} values, expected 1 or {wanted}")
        self.own, self.exits, self.tau = own, exits, tau
        self.eps = tuple(eps) * wanted if len(eps) == 1 else tuple(eps)
        width = max(setup.student.embedding.shape[1], setup.teacher.embedding.shape[1])
        self.projectors = nn.ModuleList(
            projector(x.shape[1], width, len(stages) - i, setup.num_classes)
            for i, x in enumerate(stages, start=1)
        )

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        label = is_label(t.logits, batch.labels).to(upcast(t.logits).dtype)
        target = F.softmax(upcast(t.logits) / self.tau, dim=1)
        exits = [project(x) for project, x in zip(self.projectors, s.stages, strict=True)]
        *losses, own = (
            self.cross_entropy(logits, target, label, eps)
            for logits, eps in zip([*exits, s.logits], self.eps, strict=True)
        )
        return self.own * own + self.exits * sum(losses)

    def cross_entropy(self, logits: Tensor, target: Tensor, label: Tensor, eps: float) -> Tensor:
        """Return the loss of one exit, a scalar; all tensors are [B, K]."""
        log_p = F.log_softmax(upcast(logits) / self.tau, dim=1)
        raised = target if eps == 1 else (target + label) ** eps - label
        return -(raised * log_p).sum(1).mean()


def projector(channels: int, width: int, blocks: int, num_classes: int) -> nn.Sequential:
    """Return an exit, [B, channels, H, W] -> [B, num_classes].

    Args:
        channels: of the stage.
        width: channels of the last block.
        blocks: number of separable blocks; 0: a 1x1 convolution instead.
        num_classes: K.
    """
    layers: list[nn.Module] = []
    for left in range(blocks, 0, -1):
        wider = 2 * channels if left > 1 else width
        layers.append(separable(channels, wider))
        channels = wider
    if not blocks:
        layers.append(nn.Conv2d(channels, width, 1))
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes)]
    return nn.Sequential(*layers)


def separable(channels: int, wider: int) -> nn.Sequential:
    """Return two depthwise separable 3x3 convolutions; the first halves the map."""

    def half(to: int, stride: int) -> list[nn.Module]:
        return [
            nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False),
            nn.Conv2d(channels, to, 1, bias=False),
            nn.BatchNorm2d(to),
            nn.ReLU(inplace=True),
        ]

    return nn.Sequential(*half(channels, 2), *half(wider, 1))
