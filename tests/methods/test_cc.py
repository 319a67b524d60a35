import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_features import batch, build, features, gradient_is_right, permuted
from torch import Tensor, nn


def test_value() -> None:
    s, t = (features(4, seed=i, width=w, dtype=torch.float64) for i, w in ((0, 3), (1, 5)))
    method = build("cc", s, t, width=2)

    def embed(layer: nn.Module, x: Tensor) -> list[list[float]]:
        weight, bias = (p.tolist() for p in layer.parameters())
        return [
            [
                sum(w * v for w, v in zip(ws, row, strict=True)) + b
                for ws, b in zip(weight, bias, strict=True)
            ]
            for row in x.tolist()
        ]

    a = embed(method.get_submodule("embed_s"), s.embedding)
    b = embed(method.get_submodule("embed_t"), t.embedding)
    delta = [[abs(x - y) for x, y in zip(p, q, strict=True)] for p, q in zip(a, b, strict=True)]
    expected = sum(delta[i][d] * delta[i + 1][d] for i in range(3) for d in range(2)) / 3
    assert method.loss(s, t, batch()).item() == pytest.approx(expected, rel=1e-12)


def test_value_paper() -> None:
    s, t = (features(3, seed=i, width=w, dtype=torch.float64) for i, w in ((0, 3), (1, 5)))

    def correlation(x: Tensor) -> list[float]:
        rows = [[v / math.sqrt(sum(u * u for u in row)) for v in row] for row in x.tolist()]
        cosines = [sum(p * q for p, q in zip(a, b, strict=True)) for a in rows for b in rows]
        return [
            math.exp(-0.8) * sum(0.8**p / math.factorial(p) * c**p for p in range(3))
            for c in cosines
        ]

    a, b = correlation(s.embedding), correlation(t.embedding)
    expected = sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / 9
    loss = build("cc", s, t, variant="paper").loss(s, t, batch(3))
    assert loss.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("variant", ["repdistiller", "paper"])
def test_gradient(variant: str) -> None:
    s, t = (features(3, seed=i, width=4, dtype=torch.float64) for i in (0, 1))
    assert gradient_is_right(build("cc", s, t, variant=variant, width=2), s, t)


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(4)))
def test_order_does_not_matter_in_variant_paper(order: list[int]) -> None:
    s, t = (features(seed=i, dtype=torch.float64) for i in (0, 1))
    method = build("cc", s, t, variant="paper")
    loss = method.loss(s, t, batch()).item()
    moved = method.loss(permuted(s, order), permuted(t, order), batch()).item()
    assert moved == pytest.approx(loss, rel=1e-9)


def test_loss_of_single_sample_is_zero() -> None:
    s, t = features(1, seed=0, grad=True), features(1, seed=1)
    loss = build("cc", s, t).loss(s, t, batch(1))
    loss.backward()
    assert loss.item() == 0


def test_unknown_variant_is_refused() -> None:
    s = features()
    with pytest.raises(ValueError, match="variant is 'papre', expected 'repdistiller' or 'paper'"):
        build("cc", s, s, variant="papre")
