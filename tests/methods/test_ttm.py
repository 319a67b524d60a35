import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_features import batch, build, features, gradient_is_right


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 5.0])
def test_value(weighted: bool, temperature: float) -> None:
    s, t = (features(3, seed=i, dtype=torch.float64) for i in (0, 1))
    expected = 0.0
    for a, b in zip(s.logits.tolist(), t.logits.tolist(), strict=True):
        p, q = ([math.exp(x) / sum(map(math.exp, z)) for x in z] for z in (a, b))
        power = [x ** (1 / temperature) for x in q]
        total = sum(power)
        divergence = sum(x / total * math.log(x / total / y) for x, y in zip(power, p, strict=True))
        expected += (total if weighted else 1) * divergence / 3
    method = build("ttm", s, t, weighted=weighted, tau=temperature)
    assert method.loss(s, t, batch(3)).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
def test_gradient(weighted: bool) -> None:
    s, t = (features(3, seed=i, dtype=torch.float64) for i in (0, 1))
    assert gradient_is_right(build("ttm", s, t, weighted=weighted), s, t)


def test_zero_if_student_equals_softened_teacher() -> None:
    t = features(dtype=torch.float64)
    s = t.map(lambda x: x / 10)
    assert build("ttm", s, t).loss(s, t, batch()).item() == pytest.approx(0, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 10), st.floats(-5, 5))
def test_standardised_logits_ignore_scale_and_offset(a: float, b: float) -> None:
    s, t = (features(seed=i, dtype=torch.float64) for i in (0, 1))
    method = build("ttm", s, t, standardise=True)
    loss = method.loss(s, t, batch()).item()
    assert method.loss(s.map(lambda x: a * x + b), t, batch()).item() == pytest.approx(loss)
