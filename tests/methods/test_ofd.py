"""Overhaul of feature distillation: margins, counted elements, refused pairs."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from random_features import batch, build, features, setup
from torch import nn

from kdbench.method import Incompatible
from kdbench.registry import lookup

METHOD: Any = lookup.load("ofd")
MARGINS = METHOD.loss.__globals__["margins"]


def norm(weight: float, bias: float) -> nn.BatchNorm2d:
    made = nn.BatchNorm2d(1)
    nn.init.constant_(made.weight, weight)
    nn.init.constant_(made.bias, bias)
    return made


def test_margin_is_the_mean_of_the_negative_half() -> None:
    """Of a centred normal distribution, that is -sqrt(2 / pi) deviations."""
    for weight in (2.0, -2.0):
        expected = -2 * math.sqrt(2 / math.pi)
        assert MARGINS(norm(weight, 0.0)).item() == pytest.approx(expected, rel=1e-6)


@given(st.floats(-3, 3), st.floats(-3, 3))
def test_margin_agrees_with_a_sum_over_the_density(weight: float, bias: float) -> None:
    found = MARGINS(norm(weight, bias)).item()
    assert found <= 0
    deviation = abs(weight)
    if deviation < 0.05 or not -8 < bias / deviation < 3:
        return
    x = torch.linspace(bias - 12 * deviation, 0, 100001, dtype=torch.float64)
    density = torch.exp(-(((x - bias) / deviation) ** 2) / 2)
    assert found == pytest.approx(float((x * density).sum() / density.sum()), rel=1e-3, abs=1e-4)


def test_margin_where_almost_nothing_is_negative() -> None:
    assert MARGINS(norm(0.5, 10.0)).item() == -1.5
    assert MARGINS(norm(0.0, 1.0)).item() == 0.0
    assert MARGINS(norm(0.0, -1.0)).item() == -1.0


def test_value_by_loops() -> None:
    s, t = (features(2, (2, 3), (2, 2), seed=i, dtype=torch.float64) for i in (0, 1))
    method: Any = build("ofd", s, t, scale=10.0)
    expected = 0.0
    for i, weight in enumerate((0.5, 1.0)):
        ours = method.connectors[i](s.preacts[i])
        margin = method.get_buffer(f"margin{i}")
        goals = torch.maximum(t.preacts[i], margin)
        for r, g in zip(ours.flatten().tolist(), goals.flatten().tolist(), strict=True):
            expected += weight * (r - g) ** 2 if g > 0 or r > g else 0.0
    assert method.loss(s, t, batch(2)).item() == pytest.approx(expected / 20, rel=1e-12)


def test_mdistiller_pairs_the_deepest_stages_and_pools_the_teacher() -> None:
    s = features(4, (4, 6), (4, 2), seed=0)
    t = features(4, (5, 7, 9), (8, 4, 4), seed=1)
    method: Any = build("ofd", s, t, variant="mdistiller")
    shapes = [tuple(block[0].weight.shape[:2]) for block in method.connectors]
    assert shapes == [(7, 4), (9, 6)]
    assert method.loss(s, t, batch()) > 0


def test_pairs_it_cannot_take_are_refused() -> None:
    s, t = features(seed=0), features(seed=1, sizes=(8, 8, 4))
    with pytest.raises(Incompatible, match=r"OFD needs maps of equal sizes: student \[\[4, 8, 8\]"):
        build("ofd", s, t)
    made = setup(s, s)
    without = replace(made, teacher_norms=(made.teacher_norms[0], None, made.teacher_norms[2]))
    with pytest.raises(Incompatible, match=r"no batch norm in front of stage 2, \[6, 4, 4\]"):
        METHOD(without)
    with pytest.raises(Incompatible, match="no batch norm in front of stage 1"):
        METHOD(replace(made, teacher_norms=()))
