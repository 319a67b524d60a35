import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_features import batch, build, features, gradient_is_right, permuted

from kdbench.registry import lookup


def by_loops(s: list[list[float]], t: list[list[float]], temperature: float) -> float:
    total = 0.0
    for row_s, row_t in zip(s, t, strict=True):
        weight_s = [math.exp(x / temperature) for x in row_s]
        weight_t = [math.exp(x / temperature) for x in row_t]
        for a, b in zip(weight_s, weight_t, strict=True):
            p, q = b / sum(weight_t), a / sum(weight_s)
            total += p * math.log(p / q)
    return temperature**2 * total / len(s)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_value(temperature: float) -> None:
    s, t = (features(3, seed=i, dtype=torch.float64) for i in (0, 1))
    loss = build("kd", s, t, temperature=temperature).loss(s, t, batch(3))
    expected = by_loops(s.logits.tolist(), t.logits.tolist(), temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_zero_if_student_equals_teacher() -> None:
    s = features()
    assert build("kd", s, s).loss(s, s, batch()).item() == 0


def test_gradient() -> None:
    s, t = (features(2, (2, 2), (2, 2), seed=i, dtype=torch.float64) for i in (0, 1))
    assert gradient_is_right(build("kd", s, t), s, t)


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(4)), st.integers(0, 99))
def test_order_of_the_batch_does_not_matter(order: list[int], seed: int) -> None:
    s, t = (features(seed=seed + i, dtype=torch.float64) for i in (0, 1))
    method = build("kd", s, t)
    loss = method.loss(s, t, batch())
    moved = method.loss(permuted(s, order), permuted(t, order), batch())
    assert moved.item() == pytest.approx(loss.item(), rel=1e-12)


def test_default_beta_is_zero() -> None:
    """The objective's alpha weights the divergence."""
    assert lookup.describe("kd").beta == 0


def test_standardised_logits_ignore_shift_and_scale() -> None:
    s, t = (features(3, seed=i, dtype=torch.float64) for i in (0, 1))

    def standardised(rows: list[list[float]]) -> list[list[float]]:
        out = []
        for row in rows:
            mean = sum(row) / len(row)
            deviation = math.sqrt(sum((x - mean) ** 2 for x in row) / len(row))
            out.append([(x - mean) / deviation for x in row])
        return out

    method = build("kd", s, t, standardise=True, temperature=2.0)
    loss = method.loss(s, t, batch(3)).item()
    expected = by_loops(standardised(s.logits.tolist()), standardised(t.logits.tolist()), 2.0)
    assert loss == pytest.approx(expected, rel=1e-9)
    moved = replace(t, logits=t.logits * 7 + 3)
    assert method.loss(s, moved, batch(3)).item() == pytest.approx(loss, rel=1e-9)
