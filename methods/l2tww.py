"""L2T-ww: learning what and where to transfer (Jang et al., ICML 2019, arXiv:1905.05901).

Channel weights (what) and weights of pairs of stages (where) are functions of the teacher's maps.
They are trained so that following the matching loss lowers the cross-entropy: in each step the
student looks ahead, some steps on the matching loss and one on the cross-entropy, and the
cross-entropy after them is differentiated through all these steps.
"""

import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import (
    Batch,
    Features,
    Incompatible,
    Inner,
    MetaOptimizer,
    Method,
    Objective,
    Setup,
)
from kdbench.tensors import exact, one_of, sum_squares, upcast

WHERE = ("relu6", "relu", "relu-avg", "const")
SCALE = 0.5
"""Weight of the matching loss in the authors' code, which calls it beta."""


class L2TWW(Method):
    """Match student stages with teacher stages, with meta-learned weights.

    Args:
        pairs: "all", or pairs of a teacher's and a student's stage, counted from 0: "2-1,0-0".
        looks: steps on the matching loss that a look ahead takes (the paper's T).
        order: 2, or 1 for gradients that ignore how a look-ahead's steps depend on earlier ones.
        where: how a pair's weight follows from the teacher's map: "relu6" or "relu" of a linear
            map of its mean over positions; "relu-avg": that mean divided by the number of
            channels; "const": a learnt number.
    """

    family = "feature map"
    objective = Objective(gamma=1.0, alpha=0.0)
    one_rank = True  # gathering over ranks cannot be differentiated twice
    meta_optimizer = MetaOptimizer(lr=1e-4, weight_decay=1e-4)

    def __init__(
        self,
        setup: Setup,
        *,
        pairs: str = "all",
        looks: int = 2,
        order: int = 2,
        where: str = "relu6",
    ) -> None:
        super().__init__(setup)
        if looks < 1:
            raise ValueError(f"looks is {looks}, expected at least 1")
        if order not in (1, 2):
            raise ValueError(f"order is {order}, expected 1 or 2")
        self.looks, self.order = looks, order
        s, t = setup.student.stages, setup.teacher.stages
        self.pairs = parse(pairs, len(t), len(s))
        widths = [(t[i].shape[1], s[j].shape[1]) for i, j in self.pairs]
        self.branch = nn.ModuleList(nn.Conv2d(c_s, c_t, 1) for c_t, c_s in widths)
        self.what_nets = nn.ModuleList(nn.Linear(c_t, c_t) for c_t, _ in widths)
        for net in self.what_nets.parameters():
            nn.init.zeros_(net)  # uniform weights, 1 / C_t
        self.where_nets = Where(one_of("where", where, *WHERE), [c_t for c_t, _ in widths])

    def meta(self) -> list[nn.Module]:
        return [self.what_nets, self.where_nets]

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        return self.match(s, t, self.resized(s, t))

    def adapt(self, inner: Inner) -> None:
        resized: dict[tuple[int, int, int], Tensor] = {}

        def matching(s: Features) -> Tensor:
            if not resized:  # the teacher's maps are the same in every step of the look ahead
                resized.update(self.resized(s, inner.t))
            return self.match(s, inner.t, resized)

        def task(s: Features) -> Tensor:
            return F.cross_entropy(s.logits, inner.batch.labels)

        state = inner.start()
        for of in (*[matching] * self.looks, task):
            state = inner.step(state, of, second_order=self.order == 2)
        inner.learn(inner.loss(state, task))

    def trace(self, s: Features, t: Features) -> dict[str, Tensor]:
        attention = upcast(s.logits).new_zeros(len(s.stages), len(t.stages))
        for number, (i, j) in enumerate(self.pairs):
            attention[j, i] = self.weights(t, number)[1].mean()
        return {"attention": attention}  # [S, T]

    def match(
        self, s: Features, t: Features, resized: dict[tuple[int, int, int], Tensor]
    ) -> Tensor:
        """Return the matching loss, a scalar (section 3 of the paper).

        Args:
            s: the student's features.
            t: the teacher's.
            resized: the teacher's maps, see ``resized``.
        """
        total = upcast(s.logits).new_zeros(())
        for number, (i, j) in enumerate(self.pairs):
            ours = upcast(self.branch[number](s.stages[j]))  # [B, C_t, H, W]
            size = ours.shape[2:]
            gap = sum_squares(resized[(i, *size)] - ours, 2, 3) / size.numel()  # [B, C_t]
            what, where = self.weights(t, number)
            total = total + SCALE * (where * (what * gap).sum(1)).mean()
        return total

    def weights(self, t: Features, number: int) -> tuple[Tensor, Tensor]:
        """Return the weights of a pair's channels, [B, C_t], and of the pair itself, [B]."""
        maps = upcast(t.stages[self.pairs[number][0]])
        with exact(maps):
            mean = maps.mean((2, 3))
            what = self.what_nets[number](mean).softmax(1)
            return what, self.where_nets(number, mean)

    def resized(self, s: Features, t: Features) -> dict[tuple[int, int, int], Tensor]:
        """Return the teacher's maps in the student's sizes, by stage, height and width.

        Bilinear, with half-pixel centres and without antialiasing: by a factor of 2 down it
        averages 2x2 pixels, by 4 only the middle 2x2 of each 4x4 count.
        """
        found: dict[tuple[int, int, int], Tensor] = {}
        for i, j in self.pairs:
            height, width = s.stages[j].shape[2:]
            if (i, height, width) not in found:
                maps = upcast(t.stages[i])
                if maps.shape[2:] != (height, width):
                    maps = F.interpolate(maps, (height, width), mode="bilinear")
                found[i, height, width] = maps
        return found


class Where(nn.Module):
    """The weights of all pairs.

    Args:
        kind: one of ``WHERE``.
        widths: channels of each pair's teacher map.
    """

    def __init__(self, kind: str, widths: Sequence[int]) -> None:
        super().__init__()
        self.kind = kind
        if kind == "const":
            self.theta = nn.Parameter(torch.zeros(len(widths)))
            return
        self.nets = nn.ModuleList(nn.Linear(width, 1) for width in widths)
        for net in self.nets:
            # A rectifier that is 0 for all samples gets no gradient any more.
            nn.init.ones_(net.get_parameter("bias"))

    def forward(self, number: int, mean: Tensor) -> Tensor:
        """Return a pair's weight, [B], from the mean of its teacher map, [B, C]."""
        if self.kind == "const":
            return F.softplus(10 * self.theta[number]).expand(len(mean))
        if self.kind == "relu-avg":
            mean = mean / mean.shape[1]
        weight: Tensor = self.nets[number](mean)[:, 0]
        return F.relu6(weight) if self.kind == "relu6" else weight.relu()


def parse(pairs: str, teacher: int, student: int) -> list[tuple[int, int]]:
    """Return pairs of (teacher stage, student stage).

    Raises:
        ValueError: the text is not a list of pairs.
        Incompatible: a network has no such stage.
    """
    if pairs == "all":
        return [(i, j) for i in range(teacher) for j in range(student)]
    found = []
    for text in pairs.split(","):
        match = re.fullmatch(r"\s*(\d+)-(\d+)\s*", text)
        if not match:
            raise ValueError(f"pairs is {pairs!r}, expected 'all' or stages such as '2-1,0-0'")
        i, j = int(match[1]), int(match[2])
        if i >= teacher or j >= student:
            raise Incompatible(
                f"pairs has {i}-{j}, but the teacher has {teacher} stages, the student {student}"
            )
        found.append((i, j))
    return found
