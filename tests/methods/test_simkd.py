from dataclasses import replace

import pytest
import torch
from random_features import batch, build, features, setup

from kdbench.method import Incompatible
from kdbench.registry import lookup


def test_value_and_prediction() -> None:
    """A student map twice as large is pooled, both in training and at test time."""
    s = features(3, (3, 4), (4, 4), seed=0, dtype=torch.float64)
    t = features(3, (3, 6), (4, 2), seed=1, dtype=torch.float64)
    method = build("simkd", s, t)
    x = torch.zeros(3, 4, 2, 2, dtype=torch.float64)
    for i in range(2):
        for j in range(2):
            x[:, :, i, j] = s.stages[-1][:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((2, 3))
    with torch.no_grad():
        for layer in method.get_submodule("transfer").children():
            x = layer(x)
    gaps = [
        (x[b, c, i, j].item() - t.stages[-1][b, c, i, j].item()) ** 2
        for b in range(3)
        for c in range(6)
        for i in range(2)
        for j in range(2)
    ]
    assert method.loss(s, t, batch(3)).item() == pytest.approx(sum(gaps) / len(gaps), rel=1e-9)
    head = method.get_submodule("head")
    weight, bias = (p.detach() for p in head.parameters())
    logits = method.predict(s)
    for b in range(3):
        for k in range(5):
            expected = bias[k] + sum(weight[k, c] * x[b, c].mean() for c in range(6))
            assert logits[b, k].item() == pytest.approx(expected.item(), rel=1e-9)


def test_larger_teacher_map_is_pooled() -> None:
    s, t = features(4, (4, 6), (4, 2)), features(4, (4, 6), (4, 4), seed=1)
    method = build("simkd", s, t)
    assert method.loss(s, t, batch()).isfinite()
    assert method.predict(s).shape == (4, 5)


def test_method_replaces_objective_and_is_deployed() -> None:
    s, t = features(seed=0, grad=True), features(seed=1)
    method = build("simkd", s, t)
    assert (method.objective.gamma, method.objective.alpha, method.beta) == (0, 0, 1)
    assert list(method.deployed()) == [method.transfer, method.head]
    method.loss(s, t, batch()).backward()
    assert s.logits.grad is None
    assert all(not p.requires_grad for p in method.get_submodule("head").parameters())


def test_classifier_is_a_copy() -> None:
    s, t = features(seed=0), features(seed=1)
    given = setup(s, t)
    method = lookup.load("simkd")(given)
    assert given.teacher_head is not None
    assert method.head is not given.teacher_head
    mine = next(method.get_submodule("head").parameters())
    assert torch.equal(mine, next(given.teacher_head.parameters()))


def test_incompatible_setups_are_refused() -> None:
    s, t = features(seed=0), features(seed=1)
    cls = lookup.load("simkd")
    with pytest.raises(Incompatible, match="but there is none"):
        cls(replace(setup(s, t), teacher_head=None))
    with pytest.raises(Incompatible, match=r"last stage has 8 channels, its classifier takes 9"):
        cls(setup(s, features(width=9)))
    with pytest.raises(Incompatible, match="factor 9"):
        build("simkd", s, t, factor=9)
