import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_features import batch, build, features, permuted

from kdbench.logits import divergences, entropy, is_label, log_softmax_of_rest
from kdbench.method import Batch
from kdbench.tensors import kl


def test_divergences_have_the_mean_of_kl() -> None:
    s, t = (features(seed=i, dtype=torch.float64).logits for i in (0, 1))
    assert divergences(s, t, 3.0).shape == (4,)
    torch.testing.assert_close(divergences(s, t, 3.0).mean(), kl(s, t, 3.0))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 99), st.floats(0.1, 10), st.floats(-100, 100))
def test_entropy_is_between_0_and_log_k_and_ignores_offsets(
    seed: int, temperature: float, offset: float
) -> None:
    logits = features(seed=seed, dtype=torch.float64).logits
    found = entropy(logits, temperature)
    assert ((found > 0) & (found <= math.log(5))).all()
    torch.testing.assert_close(entropy(logits + offset, temperature), found)
    p = (logits / temperature).softmax(1).tolist()
    expected = [-sum(x * math.log(x) for x in row if x) for row in p]
    assert found.tolist() == pytest.approx(expected, rel=1e-9)


def test_entropy_of_certain_and_equal_predictions() -> None:
    logits = torch.tensor([[1e5, 0.0, -1e5], [0.0, 0.0, 0.0]])
    assert entropy(logits, 1.0).tolist() == pytest.approx([0, math.log(3)])


def test_log_softmax_of_rest() -> None:
    logits, labels = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([1])
    found = log_softmax_of_rest(logits, is_label(logits, labels))
    total = math.log(math.exp(1) + math.exp(3))
    assert found.tolist() == [pytest.approx([1 - total, 0, 3 - total])]


WEIGHTED = ["ctkd", "dkd", "kd", "nkd", "ttm"]


@pytest.mark.parametrize("name", WEIGHTED)
def test_losses_are_weighted_by_the_teachers_entropy(name: str) -> None:
    """The weighted mean of the samples' own losses, with weights that are not normalised."""
    s, t = (features(4, seed=i, dtype=torch.float64) for i in (0, 1))
    given = batch()
    weighted = build(name, s, t, entropy_weighting=True, entropy_tau=2.0).loss(s, t, given)
    plain, expected = build(name, s, t), 0.0
    for i, weight in enumerate(entropy(t.logits, 2.0).tolist()):
        chosen = [i]
        alone = Batch(given.images[chosen], given.labels[chosen], given.index[chosen])
        x, y = permuted(s, chosen), permuted(t, chosen)
        expected += weight * plain.loss(x, y, alone).item() / 4
    assert weighted.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", WEIGHTED)
def test_gradient_of_weighted_losses(name: str) -> None:
    s, t = (features(3, seed=i, dtype=torch.float64) for i in (0, 1))
    method = build(name, s, t, entropy_weighting=True).requires_grad_(False)
    logits = s.logits.clone().requires_grad_()

    def loss(logits: torch.Tensor) -> torch.Tensor:
        return method.loss(replace(s, logits=logits), t, batch(3))

    assert torch.autograd.gradcheck(loss, logits)


@pytest.mark.parametrize("name", ["dkd", "kd", "ttm"])
def test_weights_come_from_logits_that_are_not_standardised(name: str) -> None:
    s, t = (features(4, seed=i, dtype=torch.float64) for i in (0, 1))
    method = build(name, s, t, entropy_weighting=True, standardise=True)
    sharper = t.map(lambda x: 3 * x)
    assert method.loss(s, sharper, batch()).item() < method.loss(s, t, batch()).item()
