import math
from dataclasses import replace

import pytest
import torch
from random_features import batch, build, features
from torch import Tensor, nn

from kdbench.logits import divergences
from kdbench.method import Features, Method
from kdbench.tensors import kl

FIRST = 1 + 20 / (1 + math.exp(-1))


def pair() -> tuple[Features, Features]:
    s, t = (features(3, seed=i, dtype=torch.float64) for i in (0, 1))
    return s, t


def gradient(method: Method, s: Features, t: Features, epoch: int, epochs: int = 240) -> Tensor:
    method.zero_grad()
    given = replace(batch(3), epoch=epoch, epochs=epochs)
    method.loss(s, t, given).backward()
    (parameter,) = method.parameters()
    assert parameter.grad is not None
    return parameter.grad


def test_value_is_kd_at_the_first_temperature() -> None:
    s, t = pair()
    loss = build("ctkd", s, t).loss(s, t, batch(3)).item()
    assert loss == pytest.approx(kl(s.logits, t.logits, FIRST).item(), rel=1e-6)


def test_gradient_of_the_student() -> None:
    s, t = pair()
    method = build("ctkd", s, t).requires_grad_(False)
    logits = s.logits.clone().requires_grad_()

    def loss(logits: Tensor) -> Tensor:
        return method.loss(replace(s, logits=logits), t, batch(3))

    assert torch.autograd.gradcheck(loss, logits)


def test_temperature_gets_the_reversed_gradient() -> None:
    s, t = pair()
    method = build("ctkd", s, t)
    (free,) = method.parameters()
    plain = nn.Parameter(free.detach().clone())
    divergences(s.logits, t.logits, 1 + 20 * plain.sigmoid()).mean().backward()
    assert plain.grad is not None
    for epoch in (1, 5, 10, 200):
        factor = -(1 - math.cos(math.pi * min(epoch, 10) / 10)) / 2
        torch.testing.assert_close(gradient(method, s, t, epoch), factor * plain.grad)


def test_length_may_be_a_share_of_the_training() -> None:
    s, t = pair()
    share, epochs = build("ctkd", s, t, loops=0.5), build("ctkd", s, t, loops=10.0)
    torch.testing.assert_close(gradient(share, s, t, 3, 20), gradient(epochs, s, t, 3, 20))
    fixed = build("ctkd", s, t, loops=0.0)
    torch.testing.assert_close(gradient(fixed, s, t, 1), gradient(epochs, s, t, 10))


def test_an_optimiser_step_makes_the_task_harder() -> None:
    s, t = pair()
    method = build("ctkd", s, t)
    given = replace(batch(3), epoch=10, epochs=20)
    before = method.loss(s, t, given)
    before.backward()
    torch.optim.SGD(method.parameters(), lr=0.1).step()
    assert method.loss(s, t, given).item() > before.item()


def test_trace_has_the_temperature() -> None:
    s, t = pair()
    assert build("ctkd", s, t).trace(s, t)["temperature"].item() == pytest.approx(FIRST, rel=1e-6)


def test_refuses_temperatures_that_may_be_zero() -> None:
    s, t = pair()
    with pytest.raises(
        ValueError, match=r"lowest is 0\.0, span 20\.0; expected a temperature above"
    ):
        build("ctkd", s, t, lowest=0.0)
