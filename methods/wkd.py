"""Distillation by Wasserstein distance (Lv et al., NeurIPS 2024, arXiv:2412.08139), section 3.

WKD-L moves the student's probabilities of the other classes to the teacher's, at a cost that is low
between classes that the teacher finds similar. WKD-F compares the last maps as Gaussians with
diagonal covariances.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.logits import is_label
from kdbench.method import Batch, Features, Incompatible, Method, Objective, Setup
from kdbench.schedules import cosine_decay
from kdbench.tensors import exact, hint_regressor, one_of, upcast

TINY = 1e-8
"""Added to costs and denominators, as in the authors' code."""


class WKD(Method):
    """Match the other classes' probabilities, or the last map's distribution, or both.

    Added to cross-entropy, without the KL term. WKD-L also has a part that learns the teacher's
    confidence in the label; its weight is 1, and it does not decay. The defaults are the authors'
    for resnet32x4 and resnet8x4. For wrn_40_2 and ShuffleV1 they take ``tau`` 6 and ``weight`` 200,
    or ``feature_weight`` 0.3, ``ratio`` 3 and ``grid`` 4.

    Args:
        form: "logit" (WKD-L), "feature" (WKD-F), or "logit+feature"; the authors use the weights
            200 and 0.08 for both together.
        weight: weight of WKD-L's transport.
        tau: temperature of the other classes' probabilities.
        regularisation: of the transport by entropy; it is found by Sinkhorn's iteration, and
            gradients pass through all ``iterations``.
        iterations: number of these.
        sharpen: kappa of the cost ``1 - exp(-kappa (1 - sim))``; 0: ``1 - sim``.
        cost: "fc": sim is the cosine of two classes' weights in the teacher's classifier.
        feature_weight: weight of WKD-F.
        ratio: weight of the means relative to the standard deviations.
        grid: WKD-F averages over grid x grid bins of the map.
        decay_from: epoch, or share of the training, from which the weights fall to 0 as a cosine.
    """

    family = "logit"
    objective = Objective(gamma=1.0, alpha=0.0)

    def __init__(
        self,
        setup: Setup,
        *,
        form: str = "logit",
        weight: float = 600.0,
        tau: float = 8.0,
        regularisation: float = 0.05,
        iterations: int = 10,
        sharpen: float = 1.0,
        cost: str = "fc",
        feature_weight: float = 0.08,
        ratio: float = 4.0,
        grid: int = 1,
        decay_from: float = 0.625,
    ) -> None:
        super().__init__(setup)
        one_of("form", form, "logit", "feature", "logit+feature")
        self.logit, self.feature = "logit" in form, "feature" in form
        self.weight, self.tau = weight, tau
        self.regularisation, self.iterations = regularisation, iterations
        self.feature_weight, self.ratio, self.grid = feature_weight, ratio, grid
        self.decay_from = decay_from
        one_of("cost", cost, "fc")
        for name, count in (("iterations", iterations), ("grid", grid)):
            if count < 1:
                raise ValueError(f"{name} is {count}, expected at least 1")
        if self.logit:
            if setup.num_classes < 2:
                raise Incompatible(f"WKD-L needs two classes or more, not {setup.num_classes}")
            if setup.teacher_head is None:
                raise Incompatible("WKD-L takes its cost from the teacher's classifier: none given")
            weights = setup.teacher_head.weight
            assert isinstance(weights, Tensor)
            self.register_buffer("cost", costs(weights.detach(), sharpen))
        if self.feature:
            a, b = setup.student.stages[-1], setup.teacher.stages[-1]
            self.conv_reg = hint_regressor(a, b)
            after = _size_after(self.conv_reg, a)
            if min(_smallest_bin(after, grid), _smallest_bin(b.shape[2:], grid)) < 2:
                raise Incompatible(
                    f"WKD-F needs two positions or more in each of {grid}x{grid} bins: "
                    f"student {list(a.shape[1:])}, teacher {list(b.shape[1:])}"
                )

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        decay = cosine_decay(batch.epoch, self.decay_from, batch.epochs)
        terms = []
        if self.logit:
            a, b = upcast(s.logits), upcast(t.logits)
            label = is_label(a, batch.labels)
            confidence = (F.softmax(b, 1) * F.log_softmax(a, 1)).masked_fill(~label, 0.0)
            terms.append(-confidence.sum() / len(a))
            terms.append(decay * self.weight * self.transport(a, b, label))
        if self.feature:
            student = upcast(self.conv_reg(upcast(s.stages[-1])))
            distance = gaussian_distance(student, upcast(t.stages[-1]), self.grid, self.ratio)
            terms.append(decay * self.feature_weight * distance)
        return torch.stack(terms).sum()

    def transport(self, a: Tensor, b: Tensor, label: Tensor) -> Tensor:
        """Return the mean cost of moving the other classes' probabilities, a scalar.

        The authors make a cost matrix of the other classes for each sample. Probabilities of 0 at
        the label give the same numbers with one matrix for all.
        """
        with exact(a):
            cost = self.get_buffer("cost")
            kernel = torch.exp(-cost / self.regularisation)  # [K, K]
            source, target = (
                F.softmax((x / self.tau).masked_fill(label, -torch.inf), 1) for x in (a, b)
            )
            u = (~label).to(a.dtype) / (a.shape[1] - 1)  # [B, K]
            v = u
            for _ in range(self.iterations):
                v = target / (u @ kernel + TINY)
                u = source / (v @ kernel.mT + TINY)
            moved = (u @ (kernel * cost)) * v
        return moved.sum() / len(a)


def costs(weights: Tensor, sharpen: float) -> Tensor:
    """Return the cost between classes from the rows of a classifier's weights, [K, D] to [K, K]."""
    rows = F.normalize(weights)
    distance = 1 - rows @ rows.mT
    if sharpen:
        distance = 1 - torch.exp(-sharpen * distance)
    return distance.relu() + TINY


def gaussian_distance(x: Tensor, y: Tensor, grid: int, ratio: float) -> Tensor:
    """Return the squared distances of means, times ``ratio``, and of standard deviations, a scalar.

    Both are sums over channels, averaged over samples and over the bins of a grid.
    """
    means, deviations = [], []
    for one, other in zip(_bins(x, grid), _bins(y, grid), strict=True):
        means.append((one.mean((2, 3)) - other.mean((2, 3))).square().sum())
        gap = _deviation(one) - _deviation(other)
        deviations.append(gap.square().sum())
    total = ratio * torch.stack(means).sum() + torch.stack(deviations).sum()
    return total / (len(x) * grid**2)


def _deviation(x: Tensor) -> Tensor:
    return (x.var((2, 3)) + 1e-5).sqrt()


def _bins(x: Tensor, grid: int) -> list[Tensor]:
    """Return the bins of a map, which overlap where the grid does not divide its size."""
    rows, columns = (_ranges(size, grid) for size in x.shape[2:])
    return [x[:, :, row, column] for row in rows for column in columns]


def _ranges(size: int, grid: int) -> list[slice]:
    return [slice(i * size // grid, math.ceil((i + 1) * size / grid)) for i in range(grid)]


def _smallest_bin(size: torch.Size, grid: int) -> int:
    """Return the number of positions in the smallest bin."""
    height, width = (min(x.stop - x.start for x in _ranges(n, grid)) for n in size)
    return int(height * width)


def _size_after(regressor: torch.nn.Module, x: Tensor) -> torch.Size:
    """Return the height and width that a regressor makes of a map."""
    conv = regressor.get_submodule("conv")
    with torch.no_grad():
        size: torch.Size = conv(x.to(next(conv.parameters()))).shape[2:]
    return size
