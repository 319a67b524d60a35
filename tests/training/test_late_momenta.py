"""A parameter whose first gradient comes later than that of others, as with drawn modules."""

from typing import Any

import pytest
import torch

from kdbench.training.sgd import Sgd

RULE: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}


@pytest.mark.parametrize("reached", [(0, 1, 0, 1, 1), (1, 0, 0, 1, 0), (1, 1, 1, 1, 1)])
def test_late_gradients_give_the_steps_of_torch(reached: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    start = [torch.randn(3, 2) for _ in range(2)]
    found = []
    for fused in (True, False):
        always, sometimes = (torch.nn.Parameter(x.clone()) for x in start)
        optimizer = Sgd([always, sometimes], fused=fused, foreach=False, **RULE)
        for step, now in enumerate(reached):
            always.grad = torch.full_like(always, step + 1.0)
            sometimes.grad = torch.full_like(sometimes, step - 3.0) if now else None
            before = sometimes.detach().clone()
            if fused:
                optimizer.begin_late_momenta()
            optimizer.step()
            assert bool(now) != torch.equal(sometimes, before)
        found.append((always.detach(), sometimes.detach()))
    for ours, expected in zip(*found, strict=True):
        assert torch.allclose(ours, expected, rtol=1e-6)


def test_no_momentum_is_made_where_torch_makes_it() -> None:
    first = torch.nn.Parameter(torch.ones(2))
    optimizer = Sgd([first], fused=True, **RULE)
    first.grad = torch.ones(2)
    optimizer.begin_late_momenta()
    assert not optimizer.state
