"""Instance relationship graph (Liu et al., CVPR 2019, pp. 7096-7104; no arXiv version).

``semckd`` (default) is the SemCKD authors' form: edges and vertices of the embeddings, and changes
between the given layers. ``zoo`` is closer to the paper's figure: the logits are the vertices, the
edges are of the embeddings and two stages, and the transformation is between these stages.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.method import Batch, Features, Incompatible, Method, Setup
from kdbench.tensors import centred_gram, distances, exact, one_of, pool, together, upcast

EPS = 1e-12
"""Smallest squared distance."""


class IRG(Method):
    """Match the batch's graph of distances and its change from layer to layer.

    Args:
        variant: "semckd" or "zoo".
        graph: ``semckd``: weight of the embeddings' edges and vertices.
        transform: ``semckd``: weight of the transformations.
        layers_s: ``semckd``: student layers for the transformations, as indices into
            ``[stem, *stages, embedding]``, taken in pairs.
        layers_t: ``semckd``: teacher layers for the transformations.
        edge_transform: ``semckd``: include the edges in the transformations.
        vertex: ``zoo``: weight of the vertices.
        edge: ``zoo``: weight of the edges.
        change: ``zoo``: weight of the transformation.
        stages: ``zoo``: indices of the two stages.
    """

    family = "relation"
    beta = 0.005

    def __init__(
        self,
        setup: Setup,
        *,
        variant: str = "semckd",
        graph: float = 1.0,
        transform: float = 1.0,
        layers_s: Sequence[int] = (),
        layers_t: Sequence[int] = (),
        edge_transform: bool = True,
        vertex: float = 0.1,
        edge: float = 5.0,
        change: float = 5.0,
        stages: Sequence[int] = (0, 1),
    ) -> None:
        super().__init__(setup)
        self.zoo = one_of("variant", variant, "semckd", "zoo") == "zoo"
        self.graph, self.transform, self.edge_transform = graph, transform, edge_transform
        self.vertex, self.edge, self.change = vertex, edge, change
        self.layers_s, self.layers_t = layers_s, layers_t
        if len(layers_s) != len(layers_t):
            raise ValueError(f"layers_s {layers_s} and layers_t {layers_t} differ in number")
        if len(layers_s) % 2:
            raise ValueError(f"layers_s has {len(layers_s)} layers, expected pairs")
        if len(stages) != 2:
            raise ValueError(f"stages is {stages}, expected two")
        self.first, self.second = stages
        for f, layers in ((setup.student, layers_s), (setup.teacher, layers_t)):
            indices, maps = (stages, f.stages) if self.zoo else (layers, nodes(f))
            if any(not 0 <= i < len(maps) for i in indices):
                raise Incompatible(f"IRG: layers {list(indices)} of a network that has {len(maps)}")
            c, d = f.stages[self.first].shape[1], f.stages[self.second].shape[1]
            if self.zoo and d not in (c, 2 * c):
                raise Incompatible(
                    f"IRG (zoo): stages {list(stages)} have {c} and {d} channels, "
                    "expected as many in the second as in the first, or twice as many"
                )

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        with exact(s.embedding):
            return self.zoo_term(s, t) if self.zoo else self.semckd_term(s, t)

    def semckd_term(self, s: Features, t: Features) -> Tensor:
        """Return the loss of the variant ``semckd``, a scalar."""
        total = self.graph * edge_gaps([s.embedding], [t.embedding])[0]
        if s.embedding.shape == t.embedding.shape:
            total = total + self.graph * vertex_gap(s.embedding, t.embedding)
        a, b = [nodes(s)[i] for i in self.layers_s], [nodes(t)[i] for i in self.layers_t]
        for i in range(0, len(a) - 1, 2):
            (s1, s2), (t1, t2) = a[i : i + 2], b[i : i + 2]
            if self.edge_transform:
                moved = edge_gap(s1, s2) - edge_gap(t1, t2)
                total = total + self.transform * moved.square()
            if s1.shape == s2.shape and t1.shape == t2.shape:
                moved = vertex_gap(s1, s2) - vertex_gap(t1, t2)
                total = total + self.transform * moved.square()
        return total

    def zoo_term(self, s: Features, t: Features) -> Tensor:
        """Return the loss of the variant ``zoo``, a scalar."""
        s1, s2, t1, t2 = (f.stages[i] for f in (s, t) for i in (self.first, self.second))
        gaps = edge_gaps([s.embedding, s1, s2], [t.embedding, t1, t2])
        edges = gaps[0] + gaps[1] + gaps[2]
        change = F.mse_loss(movement(s1, s2), movement(t1, t2))
        vertex = vertex_gap(s.logits, t.logits)
        return self.vertex * vertex + self.edge * edges / 3 + self.change * change


def nodes(f: Features) -> tuple[Tensor, ...]:
    """Return the layers that ``layers_s`` and ``layers_t`` index."""
    return (f.stem, *f.stages, f.embedding)


def vertex_gap(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean squared difference of two layers of equal shape, a scalar."""
    return F.mse_loss(upcast(a), upcast(b))


def edge_gap(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean squared difference of two layers' edges, a scalar."""
    return F.mse_loss(edges(products(a)), edges(products(b)))


def edge_gaps(s: Sequence[Tensor], t: Sequence[Tensor]) -> list[Tensor]:
    """Return ``edge_gap`` of layers of the student and of the teacher, a scalar each."""
    mine, theirs = together(edges, [products(x) for x in s], [products(x) for x in t])
    return [F.mse_loss(a, b) for a, b in zip(mine, theirs, strict=True)]


def products(x: Tensor) -> Tensor:
    """Return inner products of the centred samples, [B, ...] -> [B, B]."""
    return centred_gram(upcast(x))


def edges(gram: Tensor) -> Tensor:
    """Return squared distances in units of the largest, from inner products, [..., B, B]."""
    off = ~torch.eye(gram.shape[-1], dtype=torch.bool, device=gram.device)
    square = distances(gram).clamp_min(EPS) * off
    return square / (square.amax((-2, -1), keepdim=True) + EPS)


def movement(x: Tensor, y: Tensor) -> Tensor:
    """Return each sample's squared distance between two maps, in units of the largest, [B].

    The first map is pooled to the size of the second. If the second has twice as many channels,
    they are averaged in pairs.
    """
    x, y = pool(upcast(x), y.shape[2], y.shape[3]), upcast(y)
    if y.shape[1] > x.shape[1]:
        y = y.unflatten(1, (-1, 2)).mean(2)
    square = (x - y).square().sum((1, 2, 3)).clamp_min(EPS)
    return square / square.max()
