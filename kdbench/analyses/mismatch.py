"""Semantic mismatch: how differently the stages that a method ties together see a batch.

Small where the student's and the teacher's stages hold alike which images look alike.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kdbench.analyses.finding import Finding, dots, paper
from kdbench.analyses.trained_run import TrainedRun
from kdbench.method import Batch, Features, Method, each
from kdbench.tensors import gram, unit_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SOURCE = (
    "Semantic mismatch as in SemCKD: Chen et al., AAAI 2021 (arXiv:2012.03236); the "
    "normalisation is kdbench's own, so compare with no published figure"
)


@dataclass(frozen=True)
class Mismatch:
    """The mismatch of one method of a run.

    Attributes:
        method: name. ties: what its pairs of stages come from.
        weights, distances, parts: means over batches of weights, distances, products, [S, T].
    """

    method: str
    ties: str
    weights: Tensor
    distances: Tensor
    parts: Tensor

    @property
    def stages(self) -> list[int]:
        """The student's stages that are tied to any of the teacher's, from 1."""
        return [i + 1 for i, weight in enumerate(self.weights.sum(1)) if weight > 0]

    @property
    def score(self) -> float:
        """The sum over pairs, for each of ``stages``."""
        return float(self.parts.sum()) / max(1, len(self.stages))


def analyse(subjects: Sequence[TrainedRun], most: int | None = None) -> Finding:
    """The semantic mismatch of every method of these runs, on the same training batches.

    Args:
        subjects: runs that have a teacher, or another's beside them.
        most: as many batches at most; None: all of an epoch.
    """
    import pandas as pd

    found = [(one, part) for one in subjects for part in measure(one, most)]
    rows, table = [], []
    for one, part in found:
        label = one.label if len(one.methods) < 2 else f"{one.label}: {part.method}"
        stages = " ".join(map(str, part.stages))
        table.append(
            {"run": label, "pairs from": part.ties, "stages": stages, "mismatch": part.score}
        )
        for i, j in torch.cartesian_prod(*map(torch.arange, part.parts.shape)).tolist():
            rows.append(
                {
                    "run": one.run.id, "label": one.label, "method": part.method,
                    "pairs_from": part.ties, "mismatch": part.score,
                    "student_stage": i + 1, "teacher_stage": j + 1,
                    "weight": float(part.weights[i, j]), "distance": float(part.distances[i, j]),
                    "part": float(part.parts[i, j]),
                }
            )  # fmt: skip
    told = pd.DataFrame(table)
    return Finding(
        "mismatch",
        "Semantic mismatch of the stages that are tied together",
        SOURCE,
        told,
        pd.DataFrame(rows),
        _draw(told),
        (
            "Training images in eval mode, not augmented. A method whose loss ties no stages is "
            "measured on pairs of equal depth.",
            "Compare runs on the same stages of the student: deeper ones differ more.",
        ),
    )


def measure(subject: TrainedRun, most: int | None = None) -> list[Mismatch]:
    """The mismatch of each method of a run; of a run without methods, by depth."""
    sums: list[list[Tensor]] = []
    fixed: list[Tensor | None] = []
    names = [term.method for term in subject.run.terms] or [subject.run.method]
    methods = list(subject.methods) if subject.run.teacher else []
    batches = 0
    for images, index in subject.looks("train", most):
        s, t = subject.both(images)
        away = distances(s.stages, t.stages)
        if not sums:
            sums = [[torch.zeros_like(away) for _ in range(3)] for _ in names]
            labels = subject.data.train_labels[index.to(images.device)]
            batch = Batch(images, labels, index.to(images.device))
            fixed = [
                None if "attention" in m.trace(s, t) else tied(m, s, t, batch) for m in methods
            ] or [torch.zeros_like(away)] * len(names)
        for k, total in enumerate(sums):
            given = fixed[k]
            if given is None:
                weights = methods[k].trace(s, t)["attention"].double().cpu()
            else:
                weights = spread(given if given.any() else by_depth(*away.shape))
            for one, value in zip(total, (weights, away, weights * away), strict=True):
                one += value
        batches += 1
    return [
        Mismatch(name, _origin(given), *(value / batches for value in total))
        for name, given, total in zip(names, fixed, sums, strict=True)
    ]


def _origin(ties: Tensor | None) -> str:
    if ties is None:
        return "attention"
    return "loss" if ties.any() else "depth"


def distances(s: Sequence[Tensor], t: Sequence[Tensor]) -> Tensor:
    """How far apart stages are in which images they hold alike, [S, T] in [0, 2/sqrt(B)].

    ``d(s, t) = ||A_s - A_t||_F / B``, where A is the similarity matrix of a batch, the inner
    products of its flattened maps, with rows of unit length.

    Args:
        s, t: the stages, each [B, C, H, W].
    """
    rows_s, rows_t = ([unit_rows(gram(x).double().cpu()) for x in maps] for maps in (s, t))
    return torch.stack(
        [torch.stack([torch.linalg.matrix_norm(a - b) / len(a) for b in rows_t]) for a in rows_s]
    )


def by_depth(s: int, t: int) -> Tensor:
    """Stage i with stage i, as far as both have one, [S, T]."""
    return torch.eye(s, t, dtype=torch.float64)


def spread(ties: Tensor) -> Tensor:
    """Equal weights over the teacher stages that a student stage is tied to, [S, T]."""
    return ties.double() / ties.sum(1, keepdim=True).clamp(min=1)


def tied(method: Method, s: Features, t: Features, batch: Batch) -> Tensor:
    """Which stages a method's loss ties together, [S, T] of 0 and 1; 0 where it ties none.

    Read off the loss itself: stage i of the student is tied to stage j of the teacher if its
    gradient changes when that stage is shown the images in another order. So a method needs no
    word about it, and nobody's is forgotten.
    """
    s, t = (each(f, lambda x: x.detach().cpu()) for f in (s, t))
    batch = replace(batch, **{k: getattr(batch, k).cpu() for k in ("images", "labels", "index")})
    ties = torch.zeros(len(s.stages), len(t.stages), dtype=torch.float64)
    for first in (False, True):
        if first and type(method).pretrain_loss is Method.pretrain_loss:
            continue
        plain = _gradients(method, s, t, batch, first)
        for j in range(len(t.stages)):
            moved = replace(t, stages=_rolled(t.stages, j), preacts=_rolled(t.preacts, j))
            other = _gradients(method, s, moved, batch, first)
            for i, (a, b) in enumerate(zip(plain, other, strict=True)):
                ties[i, j] = max(float(ties[i, j]), float(not torch.equal(a, b)))
        if ties.any():
            break
    return ties


def _rolled(maps: Sequence[Tensor], j: int) -> tuple[Tensor, ...]:
    return tuple(x.roll(1, 0) if i == j else x for i, x in enumerate(maps))


def _gradients(method: Method, s: Features, t: Features, batch: Batch, first: bool) -> list[Tensor]:
    """Gradients of a method's loss to each stage and its preact, flattened together."""
    method = copy.deepcopy(method).cpu()  # one with a memory would answer otherwise next time
    leaves = each(s, lambda x: x.clone().requires_grad_())
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        loss = (method.pretrain_loss if first else method.loss)(leaves, t, batch)
    maps = [*leaves.stages, *leaves.preacts]
    given: Sequence[Tensor | None] = [None] * len(maps)
    if loss.requires_grad:
        given = torch.autograd.grad(loss, maps, allow_unused=True)
    flat = [
        (torch.zeros_like(x) if g is None else g).flatten()
        for x, g in zip(maps, given, strict=True)
    ]
    half = len(leaves.stages)
    return [torch.cat(pair) for pair in zip(flat[:half], flat[half:], strict=True)]


def _draw(table: "object") -> "Figure":
    import pandas as pd

    assert isinstance(table, pd.DataFrame)
    names = [f"{row[0]}  ({row[1]}; stages {row[2]})" for row in table.itertuples(index=False)]
    figure = paper(5.5, 0.28 * len(table) + 0.9)
    axis = figure.subplots()
    dots(axis, names, table["mismatch"].tolist(), "semantic mismatch (smaller: more alike)")
    axis.set_xlim(left=0)
    return figure
