import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_features import batch, build, features, gradient_is_right, permuted
from torch import Tensor

Rows = list[list[float]]


def pair(size: int = 4, **changes: Any) -> Any:
    return (features(size, seed=i, dtype=torch.float64, **changes) for i in (0, 1))


def huber(x: float) -> float:
    return x * x / 2 if abs(x) < 1 else abs(x) - 0.5


def minus(a: list[float], b: list[float]) -> list[float]:
    return [x - y for x, y in zip(a, b, strict=True)]


def length(a: list[float]) -> float:
    return math.sqrt(sum(x * x for x in a))


def distances(rows: Rows) -> dict[tuple[int, int], float]:
    n = range(len(rows))
    d = {(i, j): length(minus(rows[i], rows[j])) for i in n for j in n}
    mean = sum(d.values()) / (len(n) * (len(n) - 1))
    return {key: value / mean for key, value in d.items()}


def cosine(rows: Rows, i: int, j: int, k: int) -> float:
    a, b = minus(rows[j], rows[i]), minus(rows[k], rows[i])
    if not length(a) or not length(b):
        return 0.0
    return sum(x * y for x, y in zip(a, b, strict=True)) / length(a) / length(b)


def test_value() -> None:
    s, t = pair()
    a, b = s.embedding.tolist(), t.embedding.tolist()
    d_s, d_t = distances(a), distances(b)
    n = range(4)
    distance = sum(huber(d_s[key] - d_t[key]) for key in d_s) / 16
    cosines = [huber(cosine(a, i, j, k) - cosine(b, i, j, k)) for i in n for j in n for k in n]
    expected = 25 * distance + 50 * sum(cosines) / 64
    assert build("rkd", s, t).loss(s, t, batch()).item() == pytest.approx(expected, rel=1e-12)


def test_gradient() -> None:
    s, t = pair()
    assert gradient_is_right(build("rkd", s, t), s, t)


def test_zero_if_student_equals_teacher() -> None:
    s, t = pair()
    assert build("rkd", s, s).loss(s, s, batch()).item() == 0
    assert build("rkd", s, t).loss(s, t, batch()).item() > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_coincident_samples_get_bounded_gradient(dtype: torch.dtype) -> None:
    """The references' clamps give the pair a gradient of 1e12."""

    def double(x: Tensor) -> Tensor:
        return torch.cat((x[:1], x[:-1])).detach().requires_grad_()

    s = features(6, seed=0, dtype=dtype).map(lambda x: x + 3)
    s, t = s.map(double), features(6, seed=1, dtype=dtype)
    build("rkd", s, t).loss(s, t, batch(6)).backward()
    assert s.embedding.grad is not None
    assert s.embedding.grad.abs().max() < 10


def test_offset_costs_no_precision() -> None:
    grads = []
    for dtype in (torch.float32, torch.float64):
        s, t = (features(32, width=64, seed=i) for i in (0, 1))
        s, t = (f.map(lambda x: (x + 10).detach().to(dtype)) for f in (s, t))  # noqa: B023
        s.embedding.requires_grad_()
        build("rkd", s, t).loss(s, t, batch(32)).backward()
        assert s.embedding.grad is not None
        grads.append(s.embedding.grad.double())
    assert (grads[0] - grads[1]).abs().max() < 1e-4 * grads[1].abs().max()


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(5)), st.floats(0.1, 10), st.floats(-10, 10))
def test_order_scale_and_offset_do_not_matter(order: list[int], a: float, b: float) -> None:
    s, t = pair(5)
    method = build("rkd", s, t)
    loss = method.loss(s, t, batch(5)).item()
    moved = permuted(s.map(lambda x: a * x + b), order), permuted(t, order)
    assert method.loss(*moved, batch(5)).item() == pytest.approx(loss, rel=1e-8)


@pytest.mark.parametrize("size", [1, 2])
def test_too_few_samples_give_zero_loss_and_finite_gradient(size: int) -> None:
    s, t = features(size, seed=0, grad=True), features(size, seed=1)
    loss = build("rkd", s, t).loss(s, t, batch(size))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert s.embedding.grad is not None
    assert s.embedding.grad.isfinite().all()
