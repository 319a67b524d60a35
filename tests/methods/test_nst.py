import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_features import batch, build, features, gradient_is_right, permuted
from torch import Tensor


def unit(maps: Tensor) -> list[list[float]]:
    """Return the unit-length patterns of one sample's map, [C, H, W] -> [C, H*W]."""
    rows = [x.flatten().tolist() for x in maps]
    lengths = [sum(v * v for v in row) ** 0.5 or 1.0 for row in rows]
    return [[v / size for v in row] for row, size in zip(rows, lengths, strict=True)]


def kernel(a: list[list[float]], b: list[list[float]]) -> float:
    """Return the mean of (x.y)^2."""
    values = [sum(p * q for p, q in zip(x, y, strict=True)) ** 2 for x in a for y in b]
    return sum(values) / len(values)


@pytest.mark.parametrize(
    ("channels", "size"),
    [((3, 4), 4), ((6, 7), 2), ((4, 6), 2)],
    ids=["positions are many", "channels are many", "as many positions as channels"],
)
def test_value(channels: tuple[int, int], size: int) -> None:
    s, t = (features(2, (c, c), (size, size), seed=c, dtype=torch.float64) for c in channels)
    expected = 0.0
    for a, b in zip(s.stages, t.stages, strict=True):
        for i in range(2):
            x, y = unit(a[i]), unit(b[i])
            expected += (kernel(x, x) + kernel(y, y) - 2 * kernel(x, y)) / 2
    assert build("nst", s, t).loss(s, t, batch(2)).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("size", [4, 2])
def test_gradient(size: int) -> None:
    s, t = (features(2, (4,), (size,), seed=i, dtype=torch.float64) for i in (0, 1))
    s = s.map(lambda x: x + 2)
    assert gradient_is_right(build("nst", s, t), s, t)


def test_zero_if_student_equals_teacher() -> None:
    s = features()
    assert build("nst", s, s).loss(s, s, batch()).item() == pytest.approx(0, abs=1e-6)


def test_dead_channel_gets_no_gradient() -> None:
    s, t = features(seed=0), features(seed=1)
    s = s.map(lambda x: x * (torch.arange(x.shape[1]) > 0).view(-1, *[1] * (x.ndim - 2)))
    s = s.map(lambda x: x.detach().requires_grad_())
    build("nst", s, t).loss(s, t, batch()).backward()
    for stage in s.stages:
        assert stage.grad is not None
        assert not stage.grad[:, 0].any()
        assert stage.grad.isfinite().all()


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(4)), st.floats(0.1, 10))
def test_order_and_scale_do_not_matter(order: list[int], a: float) -> None:
    s, t = (features(seed=i, dtype=torch.float64) for i in (0, 1))
    method = build("nst", s, t)
    loss = method.loss(s, t, batch()).item()
    moved = permuted(s.map(lambda x: a * x), order), permuted(t, order)
    assert method.loss(*moved, batch()).item() == pytest.approx(loss, rel=1e-9)
