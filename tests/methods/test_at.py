import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_features import batch, build, features, gradient_is_right, permuted
from torch import Tensor


def unit_attention(maps: Tensor, p: int) -> list[float]:
    """Return the unit-length attention of one sample, [C, H, W] -> [H*W]."""
    channels, height, width = maps.shape
    energy = [
        sum(abs(maps[c, y, x].item()) ** p for c in range(channels)) / channels
        for y in range(height)
        for x in range(width)
    ]
    length = sum(e * e for e in energy) ** 0.5
    return [e / length for e in energy]


@pytest.mark.parametrize("p", [1, 2, 3])
def test_value(p: int) -> None:
    s = features(2, (2, 3), (4, 2), seed=0, dtype=torch.float64)
    t = features(2, (3, 2, 5), (4, 2, 2), seed=1, dtype=torch.float64)
    expected = 0.0
    for a, b in zip(s.stages, t.stages[:2], strict=True):
        off = 0.0
        for i in range(2):
            met = zip(unit_attention(a[i], p), unit_attention(b[i], p), strict=True)
            off += sum((x - y) ** 2 for x, y in met)
        expected += off / (2 * a.shape[2] * a.shape[3])
    loss = build("at", s, t, p=p).loss(s, t, batch(2))
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_larger_map_is_pooled() -> None:
    s, t = features(2, (2,), (4,), seed=0), features(2, (3,), (2,), seed=1)
    small = torch.nn.functional.avg_pool2d(s.stages[0], 2)
    pooled = s.map(lambda x: small if x is s.stages[0] else x)
    method = build("at", s, t)
    assert method.loss(s, t, batch(2)).item() == pytest.approx(
        method.loss(pooled, t, batch(2)).item(), rel=1e-6
    )


def test_zero_if_student_equals_teacher() -> None:
    s = features()
    assert build("at", s, s).loss(s, s, batch()).item() == 0


def test_gradient() -> None:
    s, t = (features(2, (2, 2), (2, 2), seed=i, dtype=torch.float64) for i in (0, 1))
    assert gradient_is_right(build("at", s, t), s, t)


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(4)), st.floats(0.1, 10), st.floats(0.1, 10))
def test_order_and_scale_do_not_matter(order: list[int], a: float, b: float) -> None:
    s, t = (features(seed=i, dtype=torch.float64) for i in (0, 1))
    method = build("at", s, t)
    loss = method.loss(s, t, batch())
    scaled = permuted(s.map(lambda x: x * a), order), permuted(t.map(lambda x: x * b), order)
    assert method.loss(*scaled, batch()).item() == pytest.approx(loss.item(), rel=1e-9)


def test_power_below_one_is_refused() -> None:
    s = features()
    with pytest.raises(ValueError, match="p is 0, expected at least 1"):
        build("at", s, s, p=0)
