"""Tests of the upper parts of networks, which methods run on their own maps."""

import copy

import golden_models
import pytest
import torch
from torch import Tensor

from kdbench.models import upper_part, zoo
from kdbench.models.network import Network
from kdbench.registry.toy_networks import Toy

STYLES = (
    "r8w3", "ResNet18", "wrn_16_2", "vgg8", "v8w16", "MobileNetV2", "ShuffleV1", "ShuffleV2", "toy",
)  # fmt: skip


def filled(name: str) -> Network:
    network = Toy(num_classes=5) if name == "toy" else zoo.create(name, num_classes=5)
    golden_models.fill(network.double(), 2)
    return network.float().to(memory_format=torch.channels_last)


def images() -> Tensor:
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return x.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("of", [upper_part.of_frozen, upper_part.of_live])
@pytest.mark.parametrize("name", STYLES)
def test_upper_part_continues_a_training_forward(name: str, of: object) -> None:
    network = filled(name).train()
    expected = copy.deepcopy(network)(images())
    before = copy.deepcopy(network.state_dict())
    assert callable(of)
    part = of(network)
    stages = (expected.stem, *expected.stages)
    for k, x in enumerate(stages):
        found = part(k, x.detach())
        assert torch.equal(found.logits, expected.logits)
        assert torch.equal(found.embedding, expected.embedding)
        assert len(found.stages) == len(found.preacts) == network.num_stages
        assert all(map(torch.equal, found.stages[k:], expected.stages[k:]))
        # The pre-activation of a stem that is the first stage (v8w16) is not known from its map.
        assert all(map(torch.equal, found.preacts[max(k, 1) :], expected.preacts[max(k, 1) :]))
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert network.training
    assert all(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("k", [-1, 4])
def test_a_stage_that_does_not_exist_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"stage {k}: Toy can be cut at 0 to 3"):
        upper_part.of_live(filled("toy"))(k, torch.zeros(2, 4, 8, 8))


def test_frozen_part_passes_gradients_to_the_map_alone() -> None:
    network = filled("toy").eval().requires_grad_(False)
    x = network(images()).stages[0].requires_grad_()
    upper_part.of_frozen(network)(1, x).logits.square().sum().backward()
    assert x.grad is not None
    assert x.grad.any()
    assert all(p.grad is None for p in network.parameters())


def test_live_part_trains_the_network_as_it_is_now() -> None:
    network = filled("toy")
    part = upper_part.of_live(network)
    x = network(images()).stages[0].detach()
    first = part(1, x).logits
    with torch.no_grad():
        network.head.bias.add_(1)
    second = part(1, x).logits
    assert torch.allclose(second, first + 1)
    second.square().sum().backward()
    reached = {name for name, p in network.named_parameters() if p.grad is not None}
    above = tuple(name for names in network.parts[2:] for name in names)
    assert reached == {n for n, _ in network.named_parameters() if n.startswith((*above, "fc."))}


def test_parts_run_in_double_precision_after_the_network_is_converted() -> None:
    network = filled("toy")
    live, frozen = upper_part.of_live(network), upper_part.of_frozen(network)
    network.double()
    x = torch.randn(4, 4, 16, 16, dtype=torch.double)
    assert live(1, x).logits.dtype == frozen(1, x).logits.dtype == torch.double
