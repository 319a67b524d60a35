"""A comprehensive overhaul of feature distillation (Heo et al., ICCV 2019, arXiv:1904.01866).

The authors' code, and mdistiller's, keep the teacher in train mode, so that it normalises with the
statistics of the batch and its running statistics drift. Here it is in eval mode, as always.
"""

import math

import torch
from torch import Tensor, nn

from kdbench.method import Batch, Features, Incompatible, Method, Objective, Setup
from kdbench.tensors import one_of, pool, sum_squares, upcast


class OFD(Method):
    """Match pre-activations; negative values of the teacher only down to a margin.

    Per channel, the margin is the mean of the negative values of a normal distribution with the
    parameters of the batch norm in front. A position counts if the teacher's value is positive, or
    if the student's is above the teacher's. Added to cross-entropy, without the KL term.

    Args:
        variant: "authors": both networks need as many stages, and maps of the same size;
            "mdistiller": pairs the deepest stages, and pools the teacher's maps to the student's
            size.
        scale: divisor of the term, 1000 for CIFAR-100 and 10000 for ImageNet.
    """

    family = "feature map"
    objective = Objective(gamma=1.0, alpha=0.0)

    def __init__(self, setup: Setup, *, variant: str = "authors", scale: float = 1000.0) -> None:
        super().__init__(setup)
        self.aligned = one_of("variant", variant, "authors", "mdistiller") == "mdistiller"
        self.scale = scale
        s, t = setup.student.preacts, setup.teacher.preacts
        if not self.aligned and [x.shape[2:] for x in s] != [x.shape[2:] for x in t]:
            shapes = [[list(x.shape[1:]) for x in side] for side in (s, t)]
            raise Incompatible(
                f"OFD needs maps of equal sizes: student {shapes[0]}, teacher {shapes[1]} "
                "(variant mdistiller pools them)"
            )
        self.depth = min(len(s), len(t))
        self.connectors = nn.ModuleList(map(_connector, s[-self.depth :], t[-self.depth :]))
        first = len(t) - self.depth
        for i, x in enumerate(t[-self.depth :]):
            stage = first + i
            norm = setup.teacher_norms[stage] if stage < len(setup.teacher_norms) else None
            if norm is None:
                shape = list(x.shape[1:])
                raise Incompatible(
                    f"OFD: the teacher has no batch norm in front of stage {stage + 1}, {shape}"
                )
            self.register_buffer(f"margin{i}", margins(norm).to(x.dtype))

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        pairs = zip(
            self.connectors, s.preacts[-self.depth :], t.preacts[-self.depth :], strict=True
        )
        terms = []
        for i, (connector, a, b) in enumerate(pairs):
            x, y = upcast(connector(upcast(a))), upcast(b)
            if x.shape[2:] != y.shape[2:]:
                y = pool(y, x.shape[2], x.shape[3])
            goal = torch.maximum(y, self.get_buffer(f"margin{i}"))
            gap = (x - goal) * ((goal > 0) | (x > goal))
            terms.append(0.5 ** (self.depth - 1 - i) * sum_squares(gap, 0, 1, 2, 3))
        return torch.stack(terms).sum() / (len(s.logits) * self.scale)


def _connector(s: Tensor, t: Tensor) -> nn.Module:
    """Build a 1x1 convolution with batch norm from a student's map to a teacher's channels."""
    conv = nn.Conv2d(s.shape[1], t.shape[1], 1, bias=False)
    nn.init.normal_(conv.weight, 0.0, math.sqrt(2 / t.shape[1]))
    return nn.Sequential(conv, nn.BatchNorm2d(t.shape[1]))


def margins(norm: nn.BatchNorm2d) -> Tensor:
    """Return the mean of the negative values of N(bias, weight^2), [1, C, 1, 1].

    Where at most 0.1 percent of the values are negative, it is -3 |weight|. The result is rounded
    to float32, as in the authors' code.
    """
    if not norm.affine:
        raise Incompatible(f"OFD needs a batch norm with weights, not {norm}")
    mean, deviation = norm.bias.detach().double(), norm.weight.detach().double().abs()
    ratio = mean / deviation.clamp(min=1e-300)
    negative = torch.special.ndtr(-ratio)
    density = torch.exp(-ratio.square() / 2) / math.sqrt(2 * math.pi)
    inside = mean - deviation * density / negative.clamp(min=1e-3)
    found = torch.where(negative > 0.001, inside, -3 * deviation)
    return found.float()[None, :, None, None]
