"""Classifiers applied to regions of the last map, as several methods match them.

A classifier is linear, so its output for a region's mean vector is the mean of its outputs at the
region's positions.
"""

import copy
from collections.abc import Callable

from torch import Tensor, nn

from kdbench.device_forms import pool
from kdbench.method import Features, Incompatible, Setup
from kdbench.tensors import exact, upcast


def teacher_classifier(who: str, setup: Setup) -> nn.Module:
    """Return a frozen copy of the teacher's classifier.

    Args:
        who: name of the method.
        setup: must have both classifiers, and features with ``last``.

    Raises:
        Incompatible: it has not.
    """
    if setup.teacher_head is None or setup.student_head is None:
        raise Incompatible(f"{who} applies both networks' classifiers, but one has none")
    for name, f in (("student", setup.student), ("teacher", setup.teacher)):
        if f.last is None:
            width = f.embedding.shape[1]
            raise Incompatible(f"{who} needs the map that is pooled to the {name}'s {width} values")
    return copy.deepcopy(setup.teacher_head).requires_grad_(False)


def last_map(f: Features) -> Tensor:
    """Return the map whose mean is the embedding, [B, D, H, W], in float32 or wider."""
    assert f.last is not None  # ``teacher_classifier`` has looked
    return upcast(f.last)


def classified(x: Tensor, classifier: Callable[[Tensor], Tensor]) -> Tensor:
    """Return a classifier's output at each position, [B, D, H, W] to [B, H * W, K]."""
    with exact(x):
        return classifier(x.flatten(2).mT)


def regions(x: Tensor, levels: int) -> list[Tensor]:
    """Pool maps, [B, D, H, W], to the grids 1x1, 2x2 and 4x4, as many as ``levels``.

    The first two grids are pooled from 4x4, which matters if 4 does not divide the size. A smaller
    map repeats its values.
    """
    finest = pool(x, 4, 4)
    grids = [finest if size == 4 else pool(finest, size, size) for size in (1, 2, 4)]
    return grids[:levels]
