import math

import pytest
import torch
import torch.nn.functional as F
from random_features import batch, build, features, gradient_is_right


def test_value() -> None:
    s = features(3, dtype=torch.float64)
    expected = 0.0
    for z, y in zip(s.logits.tolist(), batch(3).labels.tolist(), strict=True):
        log_p = [x - math.log(sum(map(math.exp, z))) for x in z]
        expected += 0.2 * (-sum(log_p) / 5 + log_p[y]) / 3
    loss = build("label_smoothing", s, s, epsilon=0.2).loss(s, s, batch(3))
    assert loss.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.5])
def test_sum_with_cross_entropy_is_smoothed_cross_entropy(epsilon: float) -> None:
    s, labels = features(6, dtype=torch.float64), batch(6).labels
    method = build("label_smoothing", s, s, epsilon=epsilon)
    assert (method.objective.gamma, method.objective.alpha, method.beta) == (1, 0, 1)
    assert not method.needs_teacher
    total = F.cross_entropy(s.logits, labels) + method.loss(s, s, batch(6))
    expected = F.cross_entropy(s.logits, labels, label_smoothing=epsilon)
    assert total.item() == pytest.approx(expected.item(), rel=1e-12)


def test_gradient() -> None:
    s = features(3, dtype=torch.float64)
    assert gradient_is_right(build("label_smoothing", s, s), s, s)
