import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_features import batch, build, features, gradient_is_right, permuted
from torch import Tensor

EPS = 1e-7


def neighbours(embedding: Tensor) -> list[list[float]]:
    rows = []
    for a in embedding.tolist():
        size = math.sqrt(sum(x * x for x in a)) + EPS
        rows.append([x / size for x in a])
    close = [[(sum(x * y for x, y in zip(a, b, strict=True)) + 1) / 2 for b in rows] for a in rows]
    return [[x / sum(row) for x in row] for row in close]


def test_value() -> None:
    s, t = (features(3, seed=i, dtype=torch.float64) for i in (0, 1))
    p, q = neighbours(s.embedding), neighbours(t.embedding)
    expected = 0.0
    for i in range(3):
        for j in range(3):
            expected += q[i][j] * math.log((q[i][j] + EPS) / (p[i][j] + EPS)) / 9
    assert build("pkt", s, t).loss(s, t, batch(3)).item() == pytest.approx(expected, rel=1e-9)


def test_gradient() -> None:
    s, t = (features(4, seed=i, dtype=torch.float64) for i in (0, 1))
    assert gradient_is_right(build("pkt", s, t), s, t)


def test_zero_if_student_equals_teacher() -> None:
    s = features()
    assert build("pkt", s, s).loss(s, s, batch()).item() == 0


def test_all_zero_embedding_gets_no_gradient() -> None:
    s, t = features(seed=0), features(seed=1)
    s = s.map(lambda x: torch.cat((torch.zeros_like(x[:1]), x[1:])).requires_grad_())
    build("pkt", s, t).loss(s, t, batch()).backward()
    assert s.embedding.grad is not None
    assert not s.embedding.grad[0].any()
    assert s.embedding.grad.abs().max() < 1


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(4)), st.floats(0.5, 10))
def test_order_and_scale_do_not_matter(order: list[int], a: float) -> None:
    s, t = (features(seed=i, dtype=torch.float64) for i in (0, 1))
    method = build("pkt", s, t)
    loss = method.loss(s, t, batch()).item()
    moved = permuted(s.map(lambda x: a * x), order), permuted(t, order)
    assert method.loss(*moved, batch()).item() == pytest.approx(loss, rel=1e-4)
