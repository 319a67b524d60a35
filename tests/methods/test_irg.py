import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_features import batch, build, features, gradient_is_right, permuted
from torch import Tensor

from kdbench.method import Features, Incompatible


def edges(x: Tensor) -> list[float]:
    rows = [row.flatten().tolist() for row in x]
    distances = [sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) for a in rows for b in rows]
    return [d / max(distances) for d in distances]


def gap(a: list[float], b: list[float]) -> float:
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / len(a)


def flat(x: Tensor) -> list[float]:
    numbers: list[float] = x.flatten().tolist()
    return numbers


def test_value() -> None:
    s, t = (features(3, seed=i, width=4, dtype=torch.float64) for i in (0, 1))
    expected = gap(edges(s.embedding), edges(t.embedding)) + gap(
        flat(s.embedding), flat(t.embedding)
    )
    assert build("irg", s, t).loss(s, t, batch(3)).item() == pytest.approx(expected, rel=1e-9)


def test_vertices_are_left_out_if_widths_differ() -> None:
    s, t = (features(3, seed=w, width=w, dtype=torch.float64) for w in (4, 5))
    expected = gap(edges(s.embedding), edges(t.embedding))
    assert build("irg", s, t).loss(s, t, batch(3)).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("edge_transform", [True, False])
def test_value_of_transformations(edge_transform: bool) -> None:
    """Layers 0 and 1 have equal shapes, 1 and 2 do not."""
    s, t = (features(3, (2, 3), (4, 2), seed=i, dtype=torch.float64) for i in (0, 1))
    for layers, same in (((0, 1), True), ((1, 2), False)):
        nodes = [(f.stem, *f.stages) for f in (s, t)]
        expected = 0.0
        for a, b in [layers[:2]]:
            (s1, s2), (t1, t2) = ((maps[a], maps[b]) for maps in nodes)
            if edge_transform:
                expected += (gap(edges(s1), edges(s2)) - gap(edges(t1), edges(t2))) ** 2
            if same:
                expected += (gap(flat(s1), flat(s2)) - gap(flat(t1), flat(t2))) ** 2
        hyper = {"graph": 0.0, "layers_s": layers, "layers_t": layers}
        method = build("irg", s, t, edge_transform=edge_transform, **hyper)
        loss = method.loss(s, t, batch(3)).item()
        assert loss == pytest.approx(expected, rel=1e-8, abs=1e-12)


def test_value_zoo() -> None:
    s, t = (features(3, (2, 4), (4, 2), seed=i, dtype=torch.float64) for i in (0, 1))

    def movement(f: Features) -> list[float]:
        totals = []
        for x, y in zip(*f.stages, strict=True):
            total = 0.0
            for c in range(2):
                for i in range(2):
                    for j in range(2):
                        pooled = x[c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].sum().item() / 4
                        later = (y[2 * c, i, j].item() + y[2 * c + 1, i, j].item()) / 2
                        total += (pooled - later) ** 2
            totals.append(total)
        return [x / max(totals) for x in totals]

    pairs = [(s.embedding, t.embedding), *zip(s.stages, t.stages, strict=True)]
    expected = 0.1 * gap(flat(s.logits), flat(t.logits))
    expected += 5 * sum(gap(edges(a), edges(b)) for a, b in pairs) / 3
    expected += 5 * gap(movement(s), movement(t))
    loss = build("irg", s, t, variant="zoo").loss(s, t, batch(3))
    assert loss.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("variant", ["semckd", "zoo"])
def test_gradient(variant: str) -> None:
    s, t = (features(3, (2, 2), (2, 2), seed=i, dtype=torch.float64) for i in (0, 1))
    method = build("irg", s, t, variant=variant, layers_s=(0, 1), layers_t=(0, 1))
    assert gradient_is_right(method, s, t)


@pytest.mark.parametrize("variant", ["semckd", "zoo"])
@settings(max_examples=10, deadline=None)
@given(st.permutations(range(4)))
def test_order_does_not_matter(variant: str, order: list[int]) -> None:
    s, t = (features(4, (4, 8, 8), (4, 2, 2), seed=i, dtype=torch.float64) for i in (0, 1))
    method = build("irg", s, t, variant=variant)
    loss = method.loss(s, t, batch()).item()
    assert method.loss(permuted(s, order), permuted(t, order), batch()).item() == pytest.approx(
        loss
    )


@pytest.mark.parametrize("variant", ["semckd", "zoo"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_equal_samples_give_finite_gradient(variant: str, size: int) -> None:
    s, t = (features(size, (4, 8), (4, 2), seed=i) for i in (0, 1))
    s = s.map(lambda x: torch.zeros_like(x).requires_grad_())
    build("irg", s, t, variant=variant).loss(s, t, batch(size)).backward()
    assert s.embedding.grad is not None
    assert s.embedding.grad.isfinite().all()


def test_incompatible_setups_are_refused() -> None:
    s = features(channels=(4, 6))
    with pytest.raises(Incompatible, match=r"stages \[0, 1\] have 4 and 6 channels"):
        build("irg", s, s, variant="zoo")
    with pytest.raises(Incompatible, match=r"layers \[0, 9\] of a network that has 4"):
        build("irg", s, s, layers_s=(0, 9), layers_t=(0, 1))
    with pytest.raises(ValueError, match="differ in number"):
        build("irg", s, s, layers_s=(0, 1))
    with pytest.raises(ValueError, match="layers_s has 3 layers, expected pairs"):
        build("irg", s, s, layers_s=(0, 1, 2), layers_t=(0, 1, 2))
