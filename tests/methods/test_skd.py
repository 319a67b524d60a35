"""Streamlined knowledge distillation: Gram matrices, Mahalanobis distance, shares."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from random_features import batch, build, features, permuted

from kdbench.method import Incompatible
from kdbench.registry import lookup
from kdbench.tensors import kl

LOW = lookup.load("skd").loss.__globals__["low"]


def test_value_with_an_inverse() -> None:
    s, t = (features(5, seed=i, dtype=torch.float64) for i in (0, 1))
    method = build("skd", s, t, regularisation=0.01, variant="plain")
    rows = [F.normalize(f.logits) for f in (s, t)]
    gaps = (rows[0] @ rows[0].T - rows[1] @ rows[1].T) / 5
    inverse = torch.linalg.inv(torch.cov(gaps.T) + 0.01 * torch.eye(5).double())
    directions = sum(float(d @ inverse @ d) ** 0.5 for d in gaps) / 5
    expected = kl(s.logits, t.logits, 4.0).item() + directions
    assert method.loss(s, t, batch(5)).item() == pytest.approx(expected, rel=1e-10)


def test_shares_are_those_at_most_the_median() -> None:
    assert LOW(torch.tensor([3.0, 1.0, 2.0])).item() == pytest.approx(2 / 3)
    assert LOW(torch.tensor([4.0, 1.0, 2.0, 3.0])) == 0.5
    assert LOW(torch.ones(4)) == 1


def test_shares_weigh_the_parts() -> None:
    s, t = (features(6, seed=i, dtype=torch.float64) for i in (0, 1))
    directions = build("skd", s, t, variant="plain").loss(s, t, batch(6)) - kl(
        s.logits, t.logits, 4.0
    )
    p = F.softmax(t.logits, 1)
    expected = LOW(p.amax(1)) * kl(s.logits, t.logits, 4.0) + LOW(p.sum(0)) * directions
    assert torch.allclose(build("skd", s, t).loss(s, t, batch(6)), expected)


def test_scale_of_the_logits_does_not_change_the_directions() -> None:
    s, t = (features(seed=i, dtype=torch.float64) for i in (0, 1))
    scaled = replace(s, logits=5 * s.logits)
    method = build("skd", s, t, variant="plain")
    change = method.loss(scaled, t, batch()) - method.loss(s, t, batch())
    expected = kl(scaled.logits, t.logits, 4.0) - kl(s.logits, t.logits, 4.0)
    assert torch.allclose(change, expected)


def test_order_of_the_samples_does_not_matter() -> None:
    s, t = (features(5, seed=i, dtype=torch.float64) for i in (0, 1))
    method = build("skd", s, t)
    order = [3, 1, 4, 0, 2]
    other = method.loss(permuted(s, order), permuted(t, order), batch(5))
    assert torch.allclose(other, method.loss(s, t, batch(5)))


def test_student_equal_to_its_teacher_has_no_loss_and_no_gradient() -> None:
    t = features(dtype=torch.float64)
    s = t.map(lambda x: x.clone().requires_grad_())
    loss = build("skd", s, t).loss(s, t, batch())
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert s.logits.grad is not None
    assert s.logits.grad.abs().max() < 1e-12


def test_gradients_pass_through_the_covariance() -> None:
    """So the gradient is that of the value, which a constant covariance would change."""
    distance = lookup.load("skd").loss.__globals__["whitened_distance"]
    gaps = features(5, dtype=torch.float64).logits.detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: distance(x, 0.1), gaps)


def test_small_batches_and_values_that_are_refused() -> None:
    one = features(1)
    with pytest.raises(Incompatible, match="batch size 2 or more"):
        build("skd", one, one)
    s = features()
    with pytest.raises(ValueError, match=r"regularisation is 0\.0, expected a positive number"):
        build("skd", s, s, regularisation=0.0)
