"""Function-consistent feature distillation (Liu et al., ICLR 2023, arXiv:2304.11832).

Student maps, bridged into the teacher's space, must also work in the teacher's later stages, and
the other way round. All maps are ``stages`` of the networks. The authors take VGG's before the
ReLU, and include the layers after the last stage of a WRN and of ShuffleNetV2.
"""

import random
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench import rng
from kdbench.method import Batch, Features, Incompatible, Method, Objective, Setup
from kdbench.schedules import warmup
from kdbench.tensors import kl, mean_square, one_of, upcast

SLOPE = 0.1
"""Of the leaky ReLU at the end of a bridge to maps after a ReLU."""
ORDERS = {"both": (True, False), "student_first": (True,), "teacher_first": (False,), "none": ()}


class Path(NamedTuple):
    """One network up to stage ``k``, and the other from there on."""

    k: int
    student_first: bool


class FCFD(Method):
    """Match bridged maps, maps of mixed paths, and the logits of mixed paths.

    ``weight * w(epoch) * sum of squared gaps + sum over mixed paths of KL``, besides cross-entropy
    and the student's KL term. The gaps are means, of every map in the teacher's space: the bridged
    one of each stage, and those of mixed paths that go through this stage of the teacher. In the
    last stage, the means of their positive parts over positions are matched, too. Gradients go
    through the teacher's stages to the bridges and the student.

    The teacher's own features are those in eval mode; in the authors' code it is in train mode. On
    mixed paths, batch norms of both networks use statistics of the batch and are not updated.

    Args:
        weight: of the squared gaps; the authors use 0.02 for resnet56 and resnet20.
        warmup: length of the linear growth of this weight, in epochs or as a share of the training.
        paths: number of mixed paths in a step, drawn without replacement.
        mixed: which network comes first: both, student_first, teacher_first or none.
        temperature: T of the KL of mixed paths. The authors use 8 for some pairs, for which the
            objective's has to be set, too.
    """

    family = "feature map"
    objective = Objective(gamma=1.0, alpha=1.0, temperature=4.0)
    capturable = False  # a step runs the modules of the paths that it draws

    def __init__(
        self,
        setup: Setup,
        *,
        weight: float = 5.0,
        warmup: float = 20.0,
        paths: int = 2,
        mixed: str = "both",
        temperature: float = 4.0,
    ) -> None:
        super().__init__(setup)
        one_of("mixed", mixed, *ORDERS)
        if paths < 0:
            raise ValueError(f"paths is {paths}, expected 0 or more")
        if setup.teacher_from is None or setup.student_from is None:
            raise Incompatible("FCFD runs parts of one student and of a teacher's network")
        s, t = setup.student.stages, setup.teacher.stages
        if len(s) != len(t):
            raise Incompatible(
                f"FCFD bridges stage by stage, but the student has {len(s)} stages and the teacher "
                f"{len(t)}"
            )
        self.teacher_from, self.student_from = setup.teacher_from, setup.student_from
        self.weight, self.warmup, self.temperature = weight, warmup, temperature
        self.seed, self.paths = setup.seed, paths
        orders, inner = ORDERS[mixed], range(1, len(s))
        self.choices = [Path(k, first) for first in orders for k in inner]
        # A bridge out of the teacher's last stage would have nowhere to go.
        back = inner if False in orders and paths else ()
        every = range(1, len(s) + 1)
        self.to_teacher = nn.ModuleList(bridge(k, s[k - 1], t[k - 1]) for k in every)
        self.to_student = nn.ModuleList(bridge(k, t[k - 1], s[k - 1]) for k in back)

    def draw(self, batch: Batch) -> list[Path]:
        """Return the mixed paths of a step; on all devices the same."""
        generator = random.Random(rng.key(self.seed, "fcfd", batch.step))
        shuffled = sorted(self.choices, key=lambda _: generator.random())
        return shuffled[: self.paths]

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        bridged = [
            activated(bridge(x), y)
            for bridge, x, y in zip(self.to_teacher, s.stages, t.stages, strict=True)
        ]
        in_teacher = [[u] for u in bridged]  # of each stage, the maps in the teacher's space
        logits = []
        for k, student_first in self.draw(batch):
            if student_first:
                above = self.teacher_from(k, bridged[k - 1])
                for maps, x in zip(in_teacher[k:], above.stages[k:], strict=True):
                    maps.append(x)
            else:
                x = activated(self.to_student[k - 1](t.stages[k - 1]), s.stages[k - 1])
                above = self.student_from(k, x)
            logits.append(above.logits)
        gaps = [
            mean_square(upcast(x) - upcast(y))
            for maps, y in zip(in_teacher, t.stages, strict=True)
            for x in maps
        ]
        pooled = positive_mean(t.stages[-1])
        gaps += [mean_square(positive_mean(x) - pooled) for x in in_teacher[-1]]
        share = warmup(batch.epoch, self.warmup, batch.epochs)
        term = self.weight * share * torch.stack(gaps).sum()
        return term + sum(kl(x, t.logits, self.temperature) for x in logits)


def bridge(k: int, source: Tensor, target: Tensor) -> nn.Sequential:
    """Build a convolution with batch norm from the maps of one network to those of the other.

    Args:
        k: number of the stage, for messages.
        source: a map of the stage, [B, C, H, W].
        target: its counterpart, [B, D, h, w].

    Raises:
        Incompatible: the sizes are neither equal nor differ by a factor of 2.
    """
    c, size = source.shape[1], source.shape[2:]
    d, wanted = target.shape[1], target.shape[2:]
    convolution: nn.Conv2d | nn.ConvTranspose2d
    if size == wanted:
        convolution = nn.Conv2d(c, d, 3, padding=1, bias=False)
    elif all(a == 2 * b for a, b in zip(size, wanted, strict=True)):
        convolution = nn.Conv2d(c, d, 3, stride=2, padding=1)
    elif all(2 * a == b for a, b in zip(size, wanted, strict=True)):
        convolution = nn.ConvTranspose2d(c, d, 4, stride=2, padding=1)
    else:
        a, b = ("x".join(map(str, x)) for x in (size, wanted))
        raise Incompatible(
            f"FCFD bridges maps of equal size or of twice the size; in stage {k} they are {a} "
            f"and {b}"
        )
    if isinstance(convolution, nn.Conv2d):
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(d))


def activated(x: Tensor, like: Tensor) -> Tensor:
    """Apply a leaky ReLU if the maps ``like``, of the network to which x goes, are after a ReLU.

    They are if none of their values is negative. Nothing waits for the device.
    """
    plain = (x > 0) | (like.detach().amin() < 0)
    return torch.where(plain, x, SLOPE * x)


def positive_mean(x: Tensor) -> Tensor:
    """Return the means of the positive parts over positions, [B, C, H, W] to [B, C]."""
    return F.relu(upcast(x)).mean((2, 3))
