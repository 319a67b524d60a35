import math

import pytest
import torch
from random_features import batch, build, features, gradient_is_right


def entropies(logits: list[list[float]]) -> list[float]:
    values = []
    for z in logits:
        p = [math.exp(x) / sum(map(math.exp, z)) for x in z]
        values.append(-sum(x * math.log(x) for x in p))
    return values


def test_value() -> None:
    s = features(4, dtype=torch.float64)
    values = entropies(s.logits.tolist())
    method = build("confidence_penalty", s, s)
    assert method.loss(s, s, batch()).item() == pytest.approx(-sum(values) / 4, rel=1e-12)
    assert (method.objective.gamma, method.objective.alpha, method.beta) == (1, 0, 0.1)
    assert not method.needs_teacher


def test_value_with_a_threshold() -> None:
    s = features(4, dtype=torch.float64)
    values = entropies(s.logits.tolist())
    threshold = sorted(values)[2]
    expected = sum(max(0.0, threshold - x) for x in values) / 4
    method = build("confidence_penalty", s, s, threshold=threshold)
    assert method.loss(s, s, batch()).item() == pytest.approx(expected, rel=1e-9)


def test_gradient() -> None:
    s = features(3, dtype=torch.float64)
    assert gradient_is_right(build("confidence_penalty", s, s), s, s)


def test_certain_predictions_give_finite_loss() -> None:
    s = features().map(lambda x: (1e4 * x).requires_grad_())
    loss = build("confidence_penalty", s, s).loss(s, s, batch())
    loss.backward()
    assert loss.isfinite()
    assert s.logits.grad is not None
    assert s.logits.grad.isfinite().all()
