import math

import pytest
import torch
import torch.nn.functional as F
from random_features import batch, build, features, gradient_is_right

from kdbench.registry import lookup


def test_value_without_exits() -> None:
    s, t = (features(3, seed=i, dtype=torch.float64) for i in (0, 1))
    expected = 0.0
    for i, y in enumerate(batch(3).labels.tolist()):
        p, q = (x.logits[i].softmax(0).tolist() for x in (s, t))
        for k, (a, b) in enumerate(zip(p, q, strict=True)):
            target = (b + 1) ** 1.5 - 1 if k == y else b**1.5
            expected -= target * math.log(a) / 3
    loss = build("ofa", s, t, exits=0.0, eps=(1.5,)).loss(s, t, batch(3)).item()
    assert loss == pytest.approx(expected, rel=1e-10)


def test_exponent_of_one_is_cross_entropy_with_the_teacher() -> None:
    s, t = (features(3, seed=i, dtype=torch.float64) for i in (0, 1))
    loss = build("ofa", s, t, exits=0.0).loss(s, t, batch(3))
    torch.testing.assert_close(loss, F.cross_entropy(s.logits, t.logits.softmax(1)))


def test_gradient() -> None:
    s, t = (features(3, seed=i, channels=(2, 2), dtype=torch.float64) for i in (0, 1))
    assert gradient_is_right(build("ofa", s, t, eps=(1.3,)), s, t)


@pytest.mark.parametrize("stages", [1, 2, 5])
def test_every_stage_has_an_exit(stages: int) -> None:
    channels = range(2, 2 + stages)
    s = features(channels=channels, grad=True)
    t = features(seed=1, width=11)
    method = build("ofa", s, t, own=0.0)
    method.loss(s, t, batch()).backward()
    assert all(x.grad is not None and x.grad.any() for x in s.stages)
    assert s.logits.grad is None or not s.logits.grad.any()
    widths = {m.out_channels for m in method.modules() if isinstance(m, torch.nn.Conv2d)}
    assert max(widths) >= 11
    linear = [m for m in method.modules() if isinstance(m, torch.nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [(11, 5)] * stages


def test_number_of_exponents() -> None:
    s = features()
    with pytest.raises(ValueError, match="eps has 2 values, expected 1 or 4"):
        build("ofa", s, s, eps=(1.0, 2.0))
    assert lookup.hyper("ofa", {"eps": [1.5]})["eps"] == (1.5,)
