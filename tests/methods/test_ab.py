import pytest
import torch
from random_features import batch, build, features

from kdbench.method import Incompatible
from kdbench.registry.toy_networks import Toy


def test_value() -> None:
    """Connectors between equal shapes are identities."""
    s, t = (features(2, (2, 3), (2, 2), seed=i, dtype=torch.float64) for i in (0, 1))
    method = build("ab", s, t, margin=0.5)
    expected = 0.0
    for stage, (a, b) in enumerate(zip(s.preacts, t.preacts, strict=True)):
        for x, y in zip(a.flatten().tolist(), b.flatten().tolist(), strict=True):
            sign = 1 if y > 0 else -1
            expected += (0.5, 1.0)[stage] * 0.003 * max(0.0, 0.5 - sign * x) ** 2 / 2
    assert method.pretrain_loss(s, t, batch(2)).item() == pytest.approx(expected, rel=1e-12)
    assert not list(method.parameters())


def test_main_phase_uses_term_only_if_set() -> None:
    s, t = (features(seed=i) for i in (0, 1))
    first = build("ab", s, t).pretrain_loss(s, t, batch())
    assert build("ab", s, t).loss(s, t, batch()).item() == 0
    assert build("ab", s, t, main=True).loss(s, t, batch()) == first


def test_connectors_map_to_teacher_shape() -> None:
    s, t = features(4, (4, 6, 8), (8, 4, 2)), features(4, (5, 7, 9), (4, 8, 6), seed=1)
    method = build("ab", s, t)
    loss = method.pretrain_loss(s, t, batch())
    loss.backward()
    assert loss.item() > 0
    assert all(p.grad is not None for p in method.parameters())


def test_first_phase_trains_trunk_and_connectors() -> None:
    s, t = features(seed=0), features(channels=(5, 6, 8), seed=1)
    student, method = Toy(), build("ab", s, t)
    trained = list(method.pretrain(student))
    assert trained[:-1] == student.trunk()
    assert trained[-1] is method.connectors


def test_unequal_depths_are_refused() -> None:
    s, t = features(channels=(4, 6)), features(channels=(4, 6, 8))
    with pytest.raises(Incompatible, match=r"AB needs equal depths: student \[\[4, 8, 8\]"):
        build("ab", s, t)
