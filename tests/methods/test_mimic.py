from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_features import batch, build, features, gradient_is_right, permuted
from torch import Tensor

from kdbench.method import Features
from kdbench.registry import lookup
from kdbench.tensors import kl


def pair(batch_size: int = 4) -> tuple[Features, Features]:
    s, t = (features(batch_size, seed=i, dtype=torch.float64) for i in (0, 1))
    return s, t


def test_value_and_gradient_of_the_definition() -> None:
    s, t = pair(3)
    s = s.map(lambda x: x.requires_grad_())
    loss = build("mimic", s, t).loss(s, t, batch(3))
    rows = zip(s.logits.tolist(), t.logits.tolist(), strict=True)
    squares = ((x - y) ** 2 for a, b in rows for x, y in zip(a, b, strict=True))
    assert loss.item() == pytest.approx(sum(squares) / 6, rel=1e-12)
    loss.backward()
    torch.testing.assert_close(s.logits.grad, (s.logits.detach() - t.logits) / 3)


@pytest.mark.parametrize("hyper", [{}, {"centre": True}, {"standardise": True}])
def test_gradient(hyper: dict[str, bool]) -> None:
    s, t = pair(3)
    assert gradient_is_right(build("mimic", s, t, **hyper), s, t)


def test_is_the_limit_of_kd_at_a_high_temperature() -> None:
    """With centred logits K times the scaled divergence becomes the term, with an error of 1/T."""
    s, t = (f.map(lambda x: x - x.mean(1, keepdim=True)) for f in pair())
    term = build("mimic", s, t).loss(s, t, batch()).item()
    for temperature in (1e3, 1e5):
        limit = s.logits.shape[1] * kl(s.logits, t.logits, temperature).item()
        assert limit == pytest.approx(term, rel=3 / temperature)


@settings(max_examples=20, deadline=None)
@given(st.floats(-50, 50), st.floats(-50, 50))
def test_centred_logits_ignore_offsets(a: float, b: float) -> None:
    s, t = pair()
    method = build("mimic", s, t, centre=True)
    moved = replace(s, logits=s.logits + a), replace(t, logits=t.logits + b)
    loss = method.loss(s, t, batch()).item()
    assert method.loss(*moved, batch()).item() == pytest.approx(loss, rel=1e-9)
    assert loss < build("mimic", s, t).loss(s, t, batch()).item()


@given(st.permutations(range(4)))
def test_order_of_the_batch_does_not_matter(order: list[int]) -> None:
    s, t = pair()
    method = build("mimic", s, t)
    moved = method.loss(permuted(s, order), permuted(t, order), batch())
    assert moved.item() == pytest.approx(method.loss(s, t, batch()).item(), rel=1e-12)


def examples(logits: Tensor, *sizes: int) -> Iterator[tuple[Features, Tensor]]:
    for part in logits.split(list(sizes)):
        given = features(len(part))
        yield replace(given, logits=part), torch.zeros(len(part), dtype=torch.int64)


@pytest.mark.parametrize("centre", [False, True])
def test_standardised_by_the_teachers_deviations_over_the_training_set(centre: bool) -> None:
    s, t = pair()
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([1.0, 2.0, 5.0, 0.1, 1.0])
    logits = 1000 + torch.randn(11, 5, generator=generator, dtype=torch.float64) * scale
    method = build("mimic", s, t, standardise=True, centre=centre)
    method.prepare(examples(logits, 4, 1, 6))
    used = logits - logits.mean(1, keepdim=True) if centre else logits
    expected = used.std(0, correction=0)
    torch.testing.assert_close(method.state_dict()["deviation"], expected, rtol=1e-9, atol=0)
    gap = s.logits - t.logits
    gap = gap - gap.mean(1, keepdim=True) if centre else gap
    loss = method.loss(s, t, batch()).item()
    assert loss == pytest.approx(((gap / expected) ** 2).sum().item() / 8, rel=1e-9)


def test_logits_that_do_not_vary_are_not_scaled() -> None:
    s, t = pair()
    method = build("mimic", s, t, standardise=True)
    logits = torch.tensor([[3.0, 0.1, 0.0, 1.0, 5.0], [3.0, 0.1, 0.0, 2.0, 5.0]])
    method.prepare(examples(logits, 1, 1))
    assert method.state_dict()["deviation"].tolist() == [1.0, 1.0, 1.0, 0.5, 1.0]


def test_state_and_pass_over_the_training_set_only_if_standardised() -> None:
    s, t = pair()

    unused = examples(t.logits, 4)
    method = build("mimic", s, t)
    method.prepare(unused)
    assert not method.state_dict()
    assert len([*unused]) == 1


def test_replaces_cross_entropy() -> None:
    described = lookup.describe("mimic")
    assert described.objective == {"gamma": 0.0, "alpha": 0.0}
    assert described.beta == 1
    assert "labels" not in described.uses
