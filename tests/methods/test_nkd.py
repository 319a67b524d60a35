import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_features import batch, build, features, gradient_is_right

from kdbench.method import Incompatible


def softmax(z: list[float]) -> list[float]:
    return [math.exp(x) / sum(map(math.exp, z)) for x in z]


@pytest.mark.parametrize("variant", ["authors", "sdd_repo"])
def test_value(variant: str) -> None:
    s, t = (features(3, seed=i, dtype=torch.float64) for i in (0, 1))
    expected = 0.0
    for i, y in enumerate(batch(3).labels.tolist()):
        a, b = (f.logits[i].tolist() for f in (s, t))
        expected -= softmax(b)[y] * math.log(softmax(a)[y]) / 3
        if variant == "authors":
            del a[y], b[y]
        p, q = (softmax([x / 2 for x in z]) for z in (a, b))
        expected -= 1.5 * 4 * sum(w * math.log(v) for v, w in zip(p, q, strict=True)) / 3
    method = build("nkd", s, t, rest=1.5, tau=2.0, variant=variant)
    assert method.loss(s, t, batch(3)).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("variant", ["authors", "sdd_repo"])
def test_gradient(variant: str) -> None:
    s, t = (features(3, seed=i, dtype=torch.float64) for i in (0, 1))
    assert gradient_is_right(build("nkd", s, t, variant=variant), s, t)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.floats(0.1, 5))
def test_other_classes_are_learnt_best_from_the_teacher_itself(seed: int, step: float) -> None:
    """A cross-entropy is least, but not 0, where both distributions are equal."""
    s, t = (features(seed=seed + i, dtype=torch.float64) for i in (0, 1))
    method = build("nkd", s, t)
    rest = method.loss(t, t, batch()) - build("nkd", s, t, rest=0.0).loss(t, t, batch())
    moved = t.map(lambda x: x + step * torch.randn_like(x))
    worse = method.loss(moved, t, batch()) - build("nkd", s, t, rest=0.0).loss(moved, t, batch())
    assert 0 < rest.item() <= worse.item()


def test_large_logits_give_finite_loss_and_gradient() -> None:
    s, t = (features(seed=i).map(lambda x: 1e4 * x) for i in (0, 1))
    s.logits.requires_grad_()
    loss = build("nkd", s, t).loss(s, t, batch())
    loss.backward()
    assert loss.isfinite()
    assert s.logits.grad is not None
    assert s.logits.grad.isfinite().all()


def test_refuses_one_class_and_unknown_variants() -> None:
    s = features(num_classes=1)
    with pytest.raises(Incompatible, match="two classes or more, not 1"):
        build("nkd", s, s)
    s = features()
    with pytest.raises(ValueError, match="'sdd', expected 'authors' or 'sdd_repo'"):
        build("nkd", s, s, variant="sdd")
