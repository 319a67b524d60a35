"""Tests of the parts of networks that methods get."""

import torch
import torch.nn.functional as F
from random_features import Toy
from torch import nn

from kdbench.models.network_parts import frozen_norms, live_head


def test_head_is_the_live_classifier_and_gradients_reach_it() -> None:
    network = Toy()
    head = live_head(network)
    x = torch.randn(2, 3, 8)
    assert torch.equal(head(x), network.head(x))
    with torch.no_grad():
        network.head.weight.add_(1)
    assert torch.equal(head(x), network.head(x))
    head(x).sum().backward()
    assert network.head.weight.grad is not None


def test_head_computes_in_the_type_of_its_argument() -> None:
    network = Toy()
    x = torch.randn(2, 8, dtype=torch.double)
    weight, bias = network.head.weight.double(), network.head.bias.double()
    assert torch.equal(live_head(network)(x), F.linear(x, weight, bias))


def test_a_method_that_keeps_the_head_does_not_register_it() -> None:
    keeper = nn.Module()
    keeper.head = live_head(Toy())  # type: ignore[assignment]
    assert not list(keeper.parameters())


def test_norms_are_frozen_copies() -> None:
    network = Toy()
    norms = frozen_norms(network)
    for copy, norm in zip(norms, network.norms(), strict=True):
        assert copy is not None
        assert norm is not None
        assert copy is not norm
        assert not copy.weight.requires_grad
        assert torch.equal(copy.running_mean, norm.running_mean)  # type: ignore[arg-type]
