import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_features import batch, build, features, gradient_is_right, permuted
from torch import Tensor


def mix(weight: Tensor, pixel: list[float]) -> list[float]:
    """Apply a 1x1 convolution to one pixel."""
    rows = weight.flatten(1).tolist()
    return [sum(w * x for w, x in zip(row, pixel, strict=True)) for row in rows]


def test_value() -> None:
    s = features(2, (2, 3), (2, 2), seed=0, dtype=torch.float64)
    t = features(2, (3, 2), (2, 2), seed=1, dtype=torch.float64)
    method = build("vid", s, t)
    with torch.no_grad():
        for i, parameter in enumerate(method.parameters()):
            parameter.add_(0.01 * i)
    state = method.state_dict()
    expected = 0.0
    for k, (a, b) in enumerate(zip(s.stages, t.stages, strict=True)):
        layers = [state[f"parts.{k}.regressor.{i}.weight"] for i in (0, 2, 4)]
        total, count = 0.0, 0
        for n in range(2):
            for y in range(2):
                for x in range(2):
                    pixel = a[n, :, y, x].tolist()
                    for layer in layers[:2]:
                        pixel = [max(0.0, v) for v in mix(layer, pixel)]
                    pixel = mix(layers[2], pixel)
                    for c, guess in enumerate(pixel):
                        scale = state[f"parts.{k}.log_scale"][c].item()
                        variance = math.log(1 + math.exp(scale)) + 1e-5
                        off = (guess - b[n, c, y, x].item()) ** 2
                        total += 0.5 * (off / variance + math.log(variance))
                        count += 1
        expected += total / count
    assert method.loss(s, t, batch(2)).item() == pytest.approx(expected, rel=1e-12)


def test_initial_variance() -> None:
    s = features(dtype=torch.float64)
    scale = build("vid", s, s, variance=2.0).state_dict()["parts.0.log_scale"]
    variance = torch.nn.functional.softplus(scale) + 1e-5
    assert variance.tolist() == pytest.approx([2.0] * 4, rel=1e-6)


def test_large_scale_does_not_overflow() -> None:
    s = features()
    method = build("vid", s, s)
    with torch.no_grad():
        method.get_parameter("parts.0.log_scale").fill_(200.0)
    assert method.loss(s, s, batch()).isfinite()


def test_gradient() -> None:
    s, t = (features(2, (2, 2), (2, 2), seed=i, dtype=torch.float64) for i in (0, 1))
    s = s.map(lambda x: x + 0.1)  # an all-zero pixel is at the regressor's kink
    assert gradient_is_right(build("vid", s, t), s, t)


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(4)))
def test_order_of_the_batch_does_not_matter(order: list[int]) -> None:
    s, t = (features(seed=i, dtype=torch.float64) for i in (0, 1))
    method = build("vid", s, t)
    loss = method.loss(s, t, batch())
    moved = method.loss(permuted(s, order), permuted(t, order), batch())
    assert moved.item() == pytest.approx(loss.item(), rel=1e-9)
