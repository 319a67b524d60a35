"""Losses and gradients in float32 are within 1e-4 of float64, on features of unit scale."""

import copy
from typing import Any

import pytest
import torch
from method_variants import ALL, label
from random_features import batch, features_for, setup

from kdbench.method import Incompatible
from kdbench.registry import lookup

WITHIN = 1e-4


@pytest.mark.parametrize("offset", [0.0, 3.0])
@pytest.mark.parametrize(("name", "hyper"), [pytest.param(*c, id=label(*c)) for c in ALL])
def test_float32(name: str, hyper: dict[str, Any], offset: float) -> None:
    s, t = (features_for(name, hyper, 8, (8, 16, 32), seed=i, width=48, views=1) for i in (0, 1))
    s, t = (f.map(lambda x: x + offset * (x.dim() == 2 and x.shape[1] == 48)) for f in (s, t))
    torch.manual_seed(0)
    try:
        method = lookup.load(name)(setup(s, t), **hyper)
    except Incompatible as reason:
        pytest.skip(str(reason))
    results = []
    for dtype in (torch.float32, torch.float64):
        own = copy.deepcopy(method).to(dtype)
        x, y = (f.map(lambda x: x.detach().to(dtype)) for f in (s, t))  # noqa: B023
        x = x.map(lambda x: x.requires_grad_())
        loss = own.loss(x, y, batch(8))
        leaves = [leaf for _, leaf in x.named()]
        grads = torch.autograd.grad(loss, leaves, allow_unused=True) if loss.requires_grad else []
        results.append((loss.detach().double(), [g for g in grads if g is not None]))
    (loss32, grads32), (loss64, grads64) = results
    assert abs(loss32 - loss64) <= WITHIN * abs(loss64) + 1e-12
    assert len(grads32) == len(grads64)
    for a, b in zip(grads32, grads64, strict=True):
        assert (a - b).abs().max() <= WITHIN * b.abs().max() + 1e-12
