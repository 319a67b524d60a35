"""Refined logit distillation: confidence, and classes that the teacher prefers to the label."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from random_features import batch, build, features

from kdbench.method import Features, Incompatible


def networks(a: list[list[float]], b: list[list[float]]) -> tuple[Features, Features]:
    classes = len(a[0])
    s, t = (features(len(a), num_classes=classes, dtype=torch.float64, seed=i) for i in (0, 1))
    pair = (replace(f, logits=torch.tensor(x).double()) for f, x in ((s, a), (t, b)))
    first, second = pair
    return first, second


def test_value_by_hand() -> None:
    """Label 0; the teacher prefers class 1, so only classes 2 and 3 are compared."""
    s, t = networks([[1.0, 0.0, 2.0, -1.0]], [[1.0, 3.0, 0.5, -0.5]])
    method = build("rld", s, t, tau=2.0, confidence_tau=1.0, correlation=8.0, warmup=0.0)
    p, q = F.softmax(s.logits[0], 0)[0], F.softmax(t.logits[0], 0)[1]
    confidence = q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()
    own, target = (F.softmax(f.logits[0, 2:] / 2, 0) for f in (s, t))
    correlation = 4 * (target * (target / own).log()).sum()
    given_batch = replace(batch(1, num_classes=4), labels=torch.tensor([0]))
    expected = (confidence + 8 * correlation).item()
    assert method.loss(s, t, given_batch).item() == pytest.approx(expected, rel=1e-12)


def test_a_label_that_the_teacher_ranks_last_leaves_only_the_confidence() -> None:
    s, t = networks([[1.0, 0.0, 2.0]], [[-4.0, 3.0, 0.5]])
    own = replace(s, logits=s.logits.requires_grad_())
    given_batch = replace(batch(1, num_classes=3), labels=torch.tensor([0]))
    loss = build("rld", s, t, confidence=0.0, warmup=0.0).loss(own, t, given_batch)
    loss.backward()
    assert loss.item() == 0
    assert own.logits.grad is not None
    assert not own.logits.grad.any()


def test_a_right_teacher_leaves_out_the_label_alone() -> None:
    s, t = networks([[1.0, 0.0, 2.0]], [[4.0, 3.0, 0.5]])
    given_batch = replace(batch(1, num_classes=3), labels=torch.tensor([0]))
    loss = build("rld", s, t, confidence=0.0, warmup=0.0).loss(s, t, given_batch)
    own, target = (F.log_softmax(f.logits[0, 1:] / 4, 0) for f in (s, t))
    expected = 8 * 16 * (target.exp() * (target - own)).sum().item()
    assert loss.item() == pytest.approx(expected, rel=1e-12)


@given(st.floats(-5, 5), st.integers(0, 100))
def test_common_offset_of_the_logits_does_not_matter(offset: float, seed: int) -> None:
    s, t = (features(dtype=torch.float64, seed=seed + i) for i in (0, 1))
    method = build("rld", s, t)
    moved = replace(s, logits=s.logits + offset)
    late = replace(batch(), epoch=30, epochs=240)
    assert torch.allclose(method.loss(moved, t, late), method.loss(s, t, late))


def test_term_grows_to_its_weight() -> None:
    s, t = (features(seed=i) for i in (0, 1))
    method = build("rld", s, t)
    early, late = (method.loss(s, t, replace(batch(), epoch=n, epochs=240)) for n in (5, 20))
    assert early.item() == pytest.approx(late.item() / 4)


def test_one_class_is_refused() -> None:
    one = features(num_classes=1)
    with pytest.raises(Incompatible, match="two classes or more, not 1"):
        build("rld", one, one)
