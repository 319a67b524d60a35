import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_features import batch, build, features, gradient_is_right, permuted

from kdbench.tensors import kl, standardise


def softmax(z: list[float]) -> list[float]:
    total = sum(math.exp(x) for x in z)
    return [math.exp(x) / total for x in z]


def divergence(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize(("target", "rest", "temperature"), [(1.0, 8.0, 4.0), (2.0, 0.5, 1.5)])
def test_value(target: float, rest: float, temperature: float) -> None:
    s, t = (features(3, seed=i, dtype=torch.float64) for i in (0, 1))
    expected = 0.0
    for i, y in enumerate(batch(3).labels.tolist()):
        a, b = ([x / temperature for x in f.logits[i].tolist()] for f in (s, t))
        p, q = softmax(a)[y], softmax(b)[y]
        expected += target * divergence([q, 1 - q], [p, 1 - p]) / 3
        del a[y], b[y]
        expected += rest * divergence(softmax(b), softmax(a)) / 3
    hyper = {"target": target, "rest": rest, "tau": temperature, "warmup": 0}
    loss = build("dkd", s, t, **hyper).loss(s, t, batch(3)).item()
    assert loss == pytest.approx(temperature**2 * expected, rel=1e-10)


def test_gradient() -> None:
    s, t = (features(3, seed=i, dtype=torch.float64) for i in (0, 1))
    assert gradient_is_right(build("dkd", s, t), s, t)


def test_equals_kd_if_teacher_gives_label_no_probability() -> None:
    """DKD with ``rest`` = 1 - p_t(label) equals KD; here p_t(label) is 0."""
    s, t = (features(4, seed=i, dtype=torch.float64) for i in (0, 1))
    labels = batch().labels
    t.logits[torch.arange(4), labels] = -1e4
    method = build("dkd", s, t, target=1.0, rest=1.0, tau=2.0, warmup=0)
    expected = kl(s.logits, t.logits, 2.0).item()
    assert method.loss(s, t, batch()).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("epoch", "share"), [(1, 0.05), (10, 0.5), (20, 1.0), (200, 1.0)])
def test_warm_up(epoch: int, share: float) -> None:
    s, t = (features(seed=i) for i in (0, 1))
    full = build("dkd", s, t, warmup=0).loss(s, t, batch()).item()
    loss = build("dkd", s, t).loss(s, t, replace(batch(), epoch=epoch)).item()
    assert loss == pytest.approx(share * full, rel=1e-6)


def test_large_logits_give_finite_loss_and_gradient() -> None:
    s, t = (features(seed=i).map(lambda x: (1e4 * x).requires_grad_()) for i in (0, 1))
    t = t.map(torch.detach)
    loss = build("dkd", s, t).loss(s, t, batch())
    loss.backward()
    assert loss.isfinite()
    assert s.logits.grad is not None
    assert s.logits.grad.isfinite().all()


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(4)), st.floats(0.1, 10), st.floats(-5, 5))
def test_standardised_logits_ignore_scale_and_offset(order: list[int], a: float, b: float) -> None:
    s, t = (features(seed=i, dtype=torch.float64) for i in (0, 1))
    method, given_batch = build("dkd", s, t, standardise=True), batch()
    loss = method.loss(s, t, given_batch).item()
    moved = permuted(s.map(lambda x: a * x + b), order), permuted(t, order)
    mixed = replace(given_batch, labels=given_batch.labels[order])
    assert method.loss(*moved, mixed).item() == pytest.approx(loss, rel=1e-8)


def test_standardise() -> None:
    rows = [[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]]
    expected = []
    for row in rows:
        mean = sum(row) / 3
        deviation = math.sqrt(sum((x - mean) ** 2 for x in row) / 3)
        expected.append([(x - mean) / deviation for x in row])
    torch.testing.assert_close(standardise(torch.tensor(rows)), torch.tensor(expected))


@pytest.mark.parametrize("value", [0.0, 0.1, 1e4])
def test_equal_logits_standardise_to_zero(value: float) -> None:
    logits = torch.full((2, 7), value, requires_grad=True)
    result = standardise(logits)
    result.square().sum().backward()
    assert not result.any()
    assert logits.grad is not None
    assert not logits.grad.any()
