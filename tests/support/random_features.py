"""Random features and ready-made set-ups for tests.

The toy network is ``kdbench.registry.toy_networks.Toy``.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.method import Batch, Features, Method, Setup
from kdbench.models import upper_part
from kdbench.models.network_parts import live_head
from kdbench.models.upper_part import UpperPart
from kdbench.registry import lookup
from kdbench.registry.toy_networks import Toy

__all__ = [
    "Toy",
    "batch",
    "build",
    "features",
    "features_for",
    "gradient_is_right",
    "permuted",
    "setup",
    "train_labels",
]


def features(
    batch_size: int = 4,
    channels: Sequence[int] = (4, 6, 8),
    sizes: Sequence[int] | None = None,
    *,
    num_classes: int = 5,
    width: int | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    grad: bool = False,
    views: int = 0,
) -> Features:
    """Return random ``Features``: independent normal tensors; stages are the preacts' ReLU.

    Args:
        batch_size: B.
        channels: channels of each stage.
        sizes: height and width of each stage; by default 8, 8, 4, 2, ... from the stem on.
        num_classes: K.
        width: D; by default the last stage's channels.
        seed: seed of the generator.
        dtype: type of all tensors.
        grad: make every tensor a leaf that requires a gradient.
        views: number of further views; only their logits are drawn anew.
    """
    sizes = sizes or [max(1, 8 // 2**i) for i in range(len(channels))]
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    preacts = tuple(
        draw(batch_size, c, size, size) for c, size in zip(channels, sizes, strict=True)
    )
    made = Features(
        stem=draw(batch_size, channels[0], sizes[0], sizes[0]),
        stages=tuple(x.relu() for x in preacts),
        preacts=preacts,
        embedding=draw(batch_size, width or channels[-1]),
        logits=draw(batch_size, num_classes),
        last=draw(batch_size, width or channels[-1], sizes[-1], sizes[-1]),
    )
    others = tuple(replace(made, logits=draw(batch_size, num_classes)) for _ in range(views))
    return replace(made, views=others).map(lambda x: x.requires_grad_(grad))


def features_for(name: str, hyper: dict[str, Any], *args: Any, **kwargs: Any) -> Features:
    """Return ``features`` for a method: with those of its peers, if it brings any.

    The peers share all maps but the last stage's.
    """
    first = features(*args, **kwargs)
    group = lookup.load(name).group(**lookup.describe(name).hyper | hyper)
    if group is None:
        return first
    peers = [first]
    for i in range(1, group.size):
        other = features(*args, **kwargs | {"seed": 100 * i + kwargs.get("seed", 0)})
        stages = (*first.stages[:-1], other.stages[-1])
        preacts = (*first.preacts[:-1], other.preacts[-1])
        peers.append(replace(other, stem=first.stem, stages=stages, preacts=preacts))
    return replace(first, peers=tuple(peers))


def batch(batch_size: int = 4, *, num_classes: int = 5, n: int = 40, seed: int = 0) -> Batch:
    """Return a batch of random images; index and labels agree with ``train_labels``."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randperm(n, generator=generator)[:batch_size]
    return Batch(
        images=torch.randn(batch_size, 3, 8, 8, generator=generator),
        labels=train_labels(n, num_classes)[index],
        index=index,
    )


def train_labels(n: int = 40, num_classes: int = 5) -> Tensor:
    """Return the labels 0, 1, ..., K-1, 0, 1, ..., [n]."""
    return torch.arange(n) % num_classes


def setup(student: Features, teacher: Features, **changes: Any) -> Setup:
    """Return a ``Setup`` for these features; both heads and the norms have random weights."""
    batch_size, num_classes = student.logits.shape
    head = nn.Linear(teacher.embedding.shape[1], num_classes).to(teacher.embedding.dtype)
    with torch.random.fork_rng():  # methods draw their weights after this
        torch.manual_seed(1)
        own = nn.Module()
        own.head = nn.Linear(student.embedding.shape[1], num_classes)
        norms = tuple(nn.BatchNorm2d(x.shape[1]) for x in teacher.preacts)
        for norm in norms:
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
        parts = [upper_part_of(f) for f in (student, teacher)]
    made = Setup(
        student=student,
        teacher=teacher,
        train_labels=train_labels(num_classes=num_classes),
        batch_size=batch_size,
        num_classes=num_classes,
        teacher_head=head.requires_grad_(False),
        student_head=live_head(own),
        teacher_norms=tuple(norm.requires_grad_(False) for norm in norms),
        new_student=partial(Toy, num_classes=num_classes),
        student_from=parts[0],
        teacher_from=parts[1],
    )
    return replace(made, **changes)


def upper_part_of(f: Features) -> UpperPart:
    """Return the upper part of a toy network of these shapes, in the precision of its argument."""
    sizes = [x.shape[2] for x in f.stages]
    strides = [max(1, a // b) for a, b in pairwise((sizes[0], *sizes))]
    network = Toy([x.shape[1] for x in f.stages], strides, num_classes=f.logits.shape[1])
    parts: dict[torch.dtype, UpperPart] = {}

    def run(k: int, x: Tensor) -> Features:
        if x.dtype not in parts:
            parts[x.dtype] = upper_part.of_frozen(copy.deepcopy(network).to(x.dtype))
        return parts[x.dtype](k, x)

    return run


def build(name: str, s: Features, t: Features, **hyper: Any) -> Method:
    """Build a method for these features, in their precision and with fixed weights."""
    torch.manual_seed(0)
    return lookup.load(name)(setup(s, t), **hyper).to(s.logits.dtype)


def permuted(f: Features, order: Sequence[int]) -> Features:
    """Return the same samples in another order."""
    return f.map(lambda x: x[list(order)])


def gradient_is_right(method: Method, s: Features, t: Features) -> bool:
    """Compare gradients to student and parameters with finite differences, in float64.

    Raises:
        GradcheckError: a gradient differs.
    """
    given = batch(len(s.logits))
    leaves = s.map(lambda x: x.detach().clone().requires_grad_())
    reached = [*(x for _, x in leaves.named()), *method.parameters()]
    loss = method.loss(leaves, t, given)
    grads = torch.autograd.grad(loss, reached, allow_unused=True)
    used = [x for x, grad in zip(reached, grads, strict=True) if grad is not None]
    assert used
    return torch.autograd.gradcheck(lambda *_: method.loss(leaves, t, given), used)
