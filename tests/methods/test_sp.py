import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_features import batch, build, features, gradient_is_right, permuted
from torch import Tensor


def similarity(maps: Tensor) -> list[list[float]]:
    """Return similarities of maps [B, C, H, W] as rows of unit length."""
    flat = [x.flatten().tolist() for x in maps]
    rows = [[sum(p * q for p, q in zip(a, b, strict=True)) for b in flat] for a in flat]
    return [[x / sum(y * y for y in row) ** 0.5 for x in row] for row in rows]


def test_value() -> None:
    s = features(3, (2, 3), (4, 2), seed=0, dtype=torch.float64)
    t = features(3, (3, 2, 5), (4, 2, 2), seed=1, dtype=torch.float64)
    a, b = similarity(s.stages[-1]), similarity(t.stages[-1])
    expected = sum((a[i][j] - b[i][j]) ** 2 for i in range(3) for j in range(3)) / 9
    assert build("sp", s, t).loss(s, t, batch(3)).item() == pytest.approx(expected, rel=1e-12)


def test_zero_if_student_equals_teacher() -> None:
    s = features()
    assert build("sp", s, s).loss(s, s, batch()).item() == 0


def test_gradient() -> None:
    s, t = (features(3, (2, 2), (2, 2), seed=i, dtype=torch.float64) for i in (0, 1))
    assert gradient_is_right(build("sp", s, t), s, t)


def test_dead_sample_gets_no_gradient() -> None:
    """The references' clamp gives the sample's row a gradient of 6e10."""

    def kill(x: Tensor) -> Tensor:
        return torch.cat((torch.zeros_like(x[:1]), x[1:])).requires_grad_()

    s, t = features(seed=0).map(kill), features(seed=1)
    build("sp", s, t).loss(s, t, batch()).backward()
    gradient = s.stages[-1].grad
    assert gradient is not None
    assert gradient.abs().max() < 1
    assert all(x.grad is None for name, x in s.named() if name != "stages[2]")


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(4)), st.floats(0.1, 10), st.floats(0.1, 10))
def test_order_and_scale_do_not_matter(order: list[int], a: float, b: float) -> None:
    s, t = (features(seed=i, dtype=torch.float64) for i in (0, 1))
    method = build("sp", s, t)
    loss = method.loss(s, t, batch())
    scaled = permuted(s.map(lambda x: x * a), order), permuted(t.map(lambda x: x * b), order)
    assert method.loss(*scaled, batch()).item() == pytest.approx(loss.item(), rel=1e-9)
