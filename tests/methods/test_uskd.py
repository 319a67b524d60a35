import math

import pytest
import torch
from random_features import batch, build, features, gradient_is_right
from torch import Tensor

from kdbench.method import Incompatible, Method
from kdbench.registry import lookup


def softmax(z: list[float]) -> list[float]:
    return [math.exp(x) / sum(map(math.exp, z)) for x in z]


def classifier(method: Method, pooled: Tensor) -> list[list[float]]:
    state = method.state_dict()
    rows: list[list[float]] = (pooled @ state["fc.weight"].T + state["fc.bias"]).tolist()
    return [softmax(row) for row in rows]


@pytest.mark.parametrize("variant", ["authors", "paper"])
def test_value(variant: str) -> None:
    s = features(3, dtype=torch.float64)
    labels = batch(3).labels.tolist()
    method = build("uskd", s, s, target=1.0, rest=0.5, weak=0.25, variant=variant)
    weak = classifier(method, s.stages[-2].mean((2, 3)))
    strong = [softmax(row) for row in s.logits.tolist()]
    square = [p[y] ** 2 for p, y in zip(strong, labels, strict=True)]
    expected = 0.0
    for p, w, y, a in zip(strong, weak, labels, square, strict=True):
        expected -= (a + 1 - sum(square) / 3) * math.log(p[y])
        x = [math.log(v) for v in p] if variant == "authors" else p
        score = [w[k] / (1 - w[y] + 1e-6) + x[k] / (1 - x[y] + 1e-6) for k in range(5)]
        ranked = sorted(range(5), key=lambda k: -score[k])
        zipf = {k: 1 / (i + 1) for i, k in enumerate(ranked) if k != y}
        others = 1 - p[y]
        nats = sum(n * math.log(p[k] / others) for k, n in zipf.items())
        expected -= 0.5 * nats / sum(zipf.values())
        smooth = [0.1 / 5 + 0.9 * (k == y) for k in range(5)]
        expected -= 0.25 * sum(v * math.log(u) for v, u in zip(smooth, w, strict=True))
    loss = method.loss(s, s, batch(3)).item()
    assert loss == pytest.approx(expected / 3, rel=1e-9)


@pytest.mark.parametrize("name", ["rest", "weak"])
def test_gradient(name: str) -> None:
    """The label's part has a constant factor that finite differences would vary."""
    s = features(3, dtype=torch.float64)
    weights = dict.fromkeys(("target", "rest", "weak"), 0.0) | {name: 1.0}
    assert gradient_is_right(build("uskd", s, s, **weights), s, s)


def test_factor_of_the_label_is_a_constant() -> None:
    s = features(3, dtype=torch.float64, grad=True)
    method = build("uskd", s, s, target=1.0, rest=0.0, weak=0.0)
    method.loss(s, s, batch(3)).backward()
    labels, p = batch(3).labels, s.logits.detach().softmax(1)
    chosen = p[torch.arange(3), labels] ** 2
    factor = chosen + 1 - chosen.mean()
    expected = factor[:, None] / 3 * (p - torch.nn.functional.one_hot(labels, 5))
    torch.testing.assert_close(s.logits.grad, expected)


def test_variants_rank_differently() -> None:
    losses = set()
    for variant in ("authors", "paper"):
        s = features(8, dtype=torch.float64)
        losses.add(build("uskd", s, s, variant=variant).loss(s, s, batch(8)).item())
    assert len(losses) == 2


def test_needs_no_teacher_but_two_stages_and_classes() -> None:
    assert not lookup.describe("uskd").needs_teacher
    s = features(channels=(4,))
    with pytest.raises(Incompatible, match="two stages or more, not 1"):
        build("uskd", s, s)
    s = features(num_classes=1)
    with pytest.raises(Incompatible, match="two classes or more, not 1"):
        build("uskd", s, s)


@pytest.mark.parametrize(("gap", "first"), [(0.5e-6, 1), (3e-6, 2)])
def test_epsilon_keeps_a_certain_classifier_from_deciding_alone(gap: float, first: int) -> None:
    """The weak one is certain of the label 0: its scores differ by 1e-12 / epsilon."""
    s = features(1, dtype=torch.float64)
    method = build("uskd", s, s, variant="paper")
    weak = torch.tensor([[1 - 3e-12, 2e-12, 1e-12]], dtype=torch.float64)
    strong = torch.tensor([[0.5, 0.25 - gap / 4, 0.25 + gap / 4]], dtype=torch.float64)
    label = torch.tensor([[True, False, False]])
    zipf = vars(type(method))["zipf"]
    targets = zipf(method, strong.log(), weak.log(), label, torch.tensor([[0]]))
    assert int(targets.argmax()) == first
