"""Semantic mismatch: how differently the stages that a method ties together compare images.

It is small if the student's and the teacher's stages agree on which images are similar.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kdbench.analyses.finding import Finding, dot_plot, new_figure
from kdbench.analyses.trained_run import TrainedRun
from kdbench.method import Batch, Features, Method
from kdbench.tensors import gram, unit_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SOURCE = (
    "Semantic mismatch as in SemCKD: Chen et al., AAAI 2021 (arXiv:2012.03236); the "
    "normalisation is kdbench's own, so published values are not comparable"
)


@dataclass(frozen=True)
class Mismatch:
    """The mismatch of one method of a run.

    Attributes:
        method: name of the method.
        ties: origin of the tied pairs of stages: attention, loss or depth.
        weights: weights of the pairs, mean over batches, [S, T].
        distances: distances of the pairs, mean over batches, [S, T].
        parts: products of weight and distance, mean over batches, [S, T].
    """

    method: str
    ties: str
    weights: Tensor
    distances: Tensor
    parts: Tensor

    @property
    def stages(self) -> list[int]:
        """The student stages that are tied to a teacher stage, counted from 1."""
        return [i + 1 for i, weight in enumerate(self.weights.sum(1)) if weight > 0]

    @property
    def score(self) -> float:
        """The sum of ``parts``, divided by the number of ``stages``."""
        return float(self.parts.sum()) / max(1, len(self.stages))


def analyse(trained_runs: Sequence[TrainedRun], max_batches: int | None = None) -> Finding:
    """Analyse the semantic mismatch of every method of these runs on the same training batches.

    Args:
        trained_runs: runs that have a teacher, or are compared with that of another run.
        max_batches: largest number of batches; None for a whole epoch.
    """
    import pandas as pd

    rows, table = [], []
    for trained, part in [(x, part) for x in trained_runs for part in measure(x, max_batches)]:
        label = trained.label
        if len(trained.methods) > 1:
            label = f"{label}: {part.method}"
        stages = " ".join(map(str, part.stages))
        table.append(
            {"run": label, "pairs from": part.ties, "stages": stages, "mismatch": part.score}
        )
        for i, j in torch.cartesian_prod(*map(torch.arange, part.parts.shape)).tolist():
            rows.append(
                {
                    "run": trained.run.id, "label": trained.label, "method": part.method,
                    "pairs_from": part.ties, "mismatch": part.score,
                    "student_stage": i + 1, "teacher_stage": j + 1,
                    "weight": float(part.weights[i, j]), "distance": float(part.distances[i, j]),
                    "part": float(part.parts[i, j]),
                }
            )  # fmt: skip
    summary = pd.DataFrame(table)
    return Finding(
        "mismatch",
        "Semantic mismatch of the stages that are tied together",
        SOURCE,
        summary,
        pd.DataFrame(rows),
        _draw(summary),
        (
            "Training images in eval mode, not augmented. A method whose loss ties no stages "
            "is measured on pairs of equal depth.",
            "Compare runs with the same student stages: deeper stages differ more.",
        ),
    )


def measure(trained: TrainedRun, max_batches: int | None = None) -> list[Mismatch]:
    """Return the mismatch of each method of a run; by depth if the run has no method."""
    sums: list[list[Tensor]] = []
    fixed: list[Tensor | None] = []  # per method: tied stages, None for attention
    names = [term.method for term in trained.run.terms] or [trained.run.method]
    methods = list(trained.methods) if trained.run.teacher else []
    batches = 0
    for images, index in trained.batches("train", max_batches):
        s, t = trained.features(images)
        distance = distances(s.stages, t.stages)
        if not sums:
            sums = [[torch.zeros_like(distance) for _ in range(3)] for _ in names]
            positions = index.to(images.device)
            batch = Batch(images, trained.data.train_labels[positions], positions)
            fixed = [
                None
                if "attention" in method.trace(s, t)
                else tied_stages(method, *seen_again(method.views - 1, s, t, batch))
                for method in methods
            ] or [torch.zeros_like(distance)] * len(names)
        for k, totals in enumerate(sums):
            ties = fixed[k]
            if ties is None:
                weights = methods[k].trace(s, t)["attention"].double().cpu()
            else:
                weights = equal_weights(ties if ties.any() else by_depth(*distance.shape))
            for total, value in zip(totals, (weights, distance, weights * distance), strict=True):
                total += value
        batches += 1
    return [
        Mismatch(name, _origin(ties), *(value / batches for value in totals))
        for name, ties, totals in zip(names, fixed, sums, strict=True)
    ]


def _origin(ties: Tensor | None) -> str:
    if ties is None:
        return "attention"
    return "loss" if ties.any() else "depth"


def distances(s: Sequence[Tensor], t: Sequence[Tensor]) -> Tensor:
    """Return the distances of the stages' similarity matrices, [S, T] in [0, 2/sqrt(B)].

    ``d(s, t) = ||A_s - A_t||_F / B``, where A is the similarity matrix of a batch: the inner
    products of its flattened maps, with rows of unit length.

    Args:
        s: student stages, each [B, C, H, W].
        t: teacher stages, each [B, C, H, W].
    """
    rows_s, rows_t = ([unit_rows(gram(x).double().cpu()) for x in maps] for maps in (s, t))
    return torch.stack(
        [torch.stack([torch.linalg.matrix_norm(a - b) / len(a) for b in rows_t]) for a in rows_s]
    )


def by_depth(s: int, t: int) -> Tensor:
    """Tie student stage i to teacher stage i if both exist, [S, T]."""
    return torch.eye(s, t, dtype=torch.float64)


def seen_again(
    times: int, s: Features, t: Features, batch: Batch
) -> tuple[Features, Features, Batch]:
    """Add views of the batch that are the batch itself, for a method that wants further views."""
    s, t = (replace(f, views=(f,) * times) for f in (s, t))
    return s, t, replace(batch, views=(batch.images,) * times)


def equal_weights(ties: Tensor) -> Tensor:
    """Weight the teacher stages that a student stage is tied to equally, [S, T]."""
    return ties.double() / ties.sum(1, keepdim=True).clamp(min=1)


def tied_stages(method: Method, s: Features, t: Features, batch: Batch) -> Tensor:
    """Find the pairs of stages that a method's loss ties together, [S, T] of 0 and 1.

    Student stage i is tied to teacher stage j if its gradient changes when the images of stage j
    are reordered. This works for any method without a declaration of its pairs.
    """
    s, t = (f.map(lambda x: x.detach().cpu()) for f in (s, t))
    batch = replace(batch, **{k: getattr(batch, k).cpu() for k in ("images", "labels", "index")})
    batch = replace(batch, views=tuple(x.cpu() for x in batch.views))
    ties = torch.zeros(len(s.stages), len(t.stages), dtype=torch.float64)
    for pretrain in (False, True):
        if pretrain and type(method).pretrain_loss is Method.pretrain_loss:
            continue
        before = _gradients(method, s, t, batch, pretrain)
        for j in range(len(t.stages)):
            rolled = replace(t, stages=_roll(t.stages, j), preacts=_roll(t.preacts, j))
            after = _gradients(method, s, rolled, batch, pretrain)
            for i, (a, b) in enumerate(zip(before, after, strict=True)):
                ties[i, j] = max(float(ties[i, j]), float(not torch.equal(a, b)))
        if ties.any():
            break
    return ties


def _roll(maps: Sequence[Tensor], j: int) -> tuple[Tensor, ...]:
    return tuple(x.roll(1, 0) if i == j else x for i, x in enumerate(maps))


def _gradients(
    method: Method, s: Features, t: Features, batch: Batch, pretrain: bool
) -> list[Tensor]:
    """Return the gradient of a method's loss by stage: map and preact, flattened together."""
    method = copy.deepcopy(method).cpu()  # a method with memory would return another loss next time
    leaves = s.map(lambda x: x.clone().requires_grad_())
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        loss = (method.pretrain_loss if pretrain else method.loss)(leaves, t, batch)
    maps = [*leaves.stages, *leaves.preacts]
    gradients: Sequence[Tensor | None] = [None] * len(maps)
    if loss.requires_grad:
        gradients = torch.autograd.grad(loss, maps, allow_unused=True)
    flat = [
        (torch.zeros_like(x) if gradient is None else gradient).flatten()
        for x, gradient in zip(maps, gradients, strict=True)
    ]
    count = len(leaves.stages)
    return [torch.cat(pair) for pair in zip(flat[:count], flat[count:], strict=True)]


def _draw(table: "object") -> "Figure":
    import pandas as pd

    assert isinstance(table, pd.DataFrame)
    names = [f"{row[0]}  ({row[1]}; stages {row[2]})" for row in table.itertuples(index=False)]
    figure = new_figure(5.5, 0.28 * len(table) + 0.9)
    axis = figure.subplots()
    dot_plot(axis, names, table["mismatch"].tolist(), "semantic mismatch (smaller: more similar)")
    axis.set_xlim(left=0)
    return figure
