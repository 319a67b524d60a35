from dataclasses import replace

import pytest
import torch
from random_features import batch, build, features, gradient_is_right, setup

from kdbench.method import Incompatible
from kdbench.registry import lookup


def test_value() -> None:
    s, t = (features(4, seed=w, width=w, dtype=torch.float64) for w in (3, 2))
    method = build("srrl", s, t)
    p = {name: x.detach() for name, x in method.named_parameters()}
    conv = p["transfer.0.weight"][:, :, 0, 0]
    x = torch.tensor(
        [[sum(conv[d, c] * row[c] for c in range(3)) for d in range(2)] for row in s.embedding],
        dtype=torch.float64,
    )
    for d in range(2):
        mean = sum(x[:, d]) / 4
        var = sum((x[:, d] - mean) ** 2) / 4
        x[:, d] = (x[:, d] - mean) / (var + 1e-5) ** 0.5
    x = x.clamp(min=0)
    feature = sum((x[b, d] - t.embedding[b, d]) ** 2 for b in range(4) for d in range(2)) / 8
    logit = 0.0
    for b in range(4):
        for k in range(5):
            output = p["head.bias"][k] + sum(p["head.weight"][k, d] * x[b, d] for d in range(2))
            logit += float((output - t.logits[b, k]) ** 2) / 20
    loss = method.loss(s, t, batch()).item()
    assert loss == pytest.approx(float(feature) + logit, rel=1e-9)


def test_gradient_passes_the_frozen_classifier() -> None:
    s, t = (features(4, seed=w, width=w, dtype=torch.float64) for w in (3, 2))
    method = build("srrl", s, t)
    assert [n for n, p in method.named_parameters() if not p.requires_grad] == [
        "head.weight",
        "head.bias",
    ]
    method.get_submodule("head").requires_grad_(True)
    assert gradient_is_right(method, s, t)


def test_incompatible_setups_are_refused() -> None:
    s, cls = features(), lookup.load("srrl")
    with pytest.raises(Incompatible, match="but there is none"):
        cls(replace(setup(s, s), teacher_head=None))
    with pytest.raises(Incompatible, match="more than 1 value per channel"):
        build("srrl", features(1), features(1))
