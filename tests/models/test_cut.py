"""Networks cut at a stage: the same bits as the whole, in every mode, for every architecture."""

import copy

import golden_models
import pytest
import torch
from torch import Tensor

from kdbench.method import Features
from kdbench.models import zoo
from kdbench.models.fold_batch_norm import folded
from kdbench.models.network import Lower, Network
from kdbench.registry.toy_networks import Toy

STYLES = (
    "r8w3", "resnet8x4", "ResNet18", "ResNet50", "wrn_16_2", "vgg8", "v5w16", "v8w16",
    "MobileNetV2", "ShuffleV1", "ShuffleV2", "toy",
)  # fmt: skip


def filled(name: str) -> Network:
    """Return a network whose weights and running statistics are nowhere trivial."""
    network = Toy(num_classes=5) if name == "toy" else zoo.create(name, num_classes=5)
    golden_models.fill(network.double(), 2)
    return network.float()


def images() -> Tensor:
    return torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def run(network: Network, k: int | None) -> tuple[Features, list[Tensor | None], list[Tensor]]:
    """Run a network, cut at stage ``k``; return features, gradients, and buffers afterwards."""
    x = images()
    whole = network(x) if k is None else network.onward(network.upto(x, k))
    if any(p.requires_grad for p in network.parameters()):
        torch.stack([value.square().mean() for _, value in whole.named()]).sum().backward()
    return whole, [p.grad for p in network.parameters()], list(network.buffers())


@pytest.mark.parametrize("mode", ["train", "eval", "folded"])
@pytest.mark.parametrize("name", STYLES)
def test_a_cut_network_computes_the_same_bits(name: str, mode: str) -> None:
    network = filled(name).train(mode == "train")
    network = folded(network) if mode == "folded" else network
    features, gradients, buffers = run(copy.deepcopy(network), None)
    assert len(features.stages) == network.num_stages
    for k in range(network.num_stages + 1):
        other = run(copy.deepcopy(network), k)
        for (what, a), (_, b) in zip(features.named(), other[0].named(), strict=True):
            assert torch.equal(a, b), f"{what} of {name} cut at {k}"
        for a_grad, b_grad in zip(gradients, other[1], strict=True):
            assert (a_grad is None) == (b_grad is None)
            assert a_grad is None or b_grad is None or torch.equal(a_grad, b_grad)
        assert all(map(torch.equal, buffers, other[2]))


@pytest.mark.parametrize("name", STYLES)
def test_lower_part_ends_with_the_stage_it_is_cut_at(name: str) -> None:
    network = filled(name).eval()
    features = network(images())
    for k in range(network.num_stages + 1):
        lower = network.upto(images(), k)
        assert len(lower.stages) == k
        assert torch.equal(lower.last, features.stages[k - 1] if k else features.stem)
        assert abs(len(lower.preacts) - k) <= 1
        assert all(map(torch.equal, lower.preacts, features.preacts))


@pytest.mark.parametrize("name", STYLES)
def test_upper_part_has_the_same_names_and_no_idle_parameters(name: str) -> None:
    whole = filled(name)
    expected = copy.deepcopy(whole)(images())
    state = whole.state_dict()
    for k in range(whole.num_stages + 1):
        upper = copy.deepcopy(whole).without(k)
        assert all(torch.equal(value, state[key]) for key, value in upper.state_dict().items())
        features = upper.onward(copy.deepcopy(whole).upto(images(), k))
        for (what, a), (_, b) in zip(expected.named(), features.named(), strict=True):
            assert torch.equal(a, b), f"{what} of {name} cut at {k}"
        features.logits.square().sum().backward()
        assert all(p.grad is not None for p in upper.parameters())
        for part in (part for parts in whole.parts[: k + 1] for part in parts):
            with pytest.raises(AttributeError):
                upper.get_submodule(part)


@pytest.mark.parametrize("name", STYLES)
def test_stages_after_a_cut_depend_on_its_map_alone(name: str) -> None:
    network = filled(name).eval()
    lower = network.upto(images(), 2)
    other = Lower(lower.stem + 1, (lower.stages[0] + 1, lower.stages[1]), lower.preacts)
    a, b = network.onward(lower), network.onward(other)
    assert torch.equal(a.logits, b.logits)
    assert all(map(torch.equal, a.stages[2:], b.stages[2:]))


def test_shape_of_images_is_checked_by_forward_alone() -> None:
    network = filled("vgg8")
    with pytest.raises(ValueError, match="VGG takes images"):
        network(torch.zeros(2, 1, 16, 16))
    assert isinstance(network.upto(images(), 1), Lower)
