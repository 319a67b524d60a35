import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_features import batch, build, features, gradient_is_right, permuted


def softmax(z: list[float]) -> list[float]:
    total = sum(math.exp(x) for x in z)
    return [math.exp(x) / total for x in z]


def pearson(a: list[float], b: list[float]) -> float:
    p, q = ([x - sum(row) / len(row) for x in row] for row in (a, b))
    covariance = sum(x * y for x, y in zip(p, q, strict=True))
    return covariance / math.sqrt(sum(x * x for x in p) * sum(x * x for x in q))


def test_value() -> None:
    s, t = (features(4, seed=i, dtype=torch.float64) for i in (0, 1))
    a, b = ([softmax([x / 4 for x in z]) for z in f.logits.tolist()] for f in (s, t))
    inter = 1 - sum(pearson(x, y) for x, y in zip(a, b, strict=True)) / 4
    columns = zip(zip(*a, strict=True), zip(*b, strict=True), strict=True)
    intra = 1 - sum(pearson(list(x), list(y)) for x, y in columns) / 5
    loss = build("dist", s, t).loss(s, t, batch()).item()
    assert loss == pytest.approx(16 * (2 * inter + 2 * intra), rel=1e-9)
    loss = build("dist", s, t, inter=1.0, intra=0.5).loss(s, t, batch()).item()
    assert loss == pytest.approx(16 * (inter + 0.5 * intra), rel=1e-9)


@pytest.mark.parametrize("standardise", [True, False])
def test_gradient(standardise: bool) -> None:
    s, t = (features(3, seed=i, dtype=torch.float64) for i in (0, 1))
    assert gradient_is_right(build("dist", s, t, standardise=standardise), s, t)


def test_zero_if_student_equals_teacher() -> None:
    s = features()
    assert build("dist", s, s).loss(s, s, batch()).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, 3.0])
def test_constant_predictions_get_bounded_gradient(value: float) -> None:
    """Pearson's correlation of a constant is undefined; the method uses 0, without gradient."""
    s, t = features(seed=0), features(seed=1)
    s = s.map(lambda x: torch.full_like(x, value).requires_grad_())
    loss = build("dist", s, t).loss(s, t, batch())
    loss.backward()
    assert loss.item() == pytest.approx(64)
    assert s.logits.grad is not None
    assert not s.logits.grad.any()


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(4)), st.floats(-5, 5))
def test_order_and_offset_do_not_matter(order: list[int], b: float) -> None:
    s, t = (features(seed=i, dtype=torch.float64) for i in (0, 1))
    method = build("dist", s, t)
    loss = method.loss(s, t, batch()).item()
    moved = permuted(s.map(lambda x: x + b), order), permuted(t, order)
    assert method.loss(*moved, batch()).item() == pytest.approx(loss, rel=1e-8)
