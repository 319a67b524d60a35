"""Size of a network: parameters, and multiply-accumulates (MACs) of one image."""

import copy
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.models import zoo


def params(network: nn.Module) -> int:
    """Count the parameters, without running statistics."""
    return sum(p.numel() for p in network.parameters())


def macs(network: str | nn.Module, in_channels: int, size: int, num_classes: int) -> int:
    """Count the MACs of one image, [in_channels, size, size]; cached for names.

    Args:
        network: name of the zoo, or a network, which is not changed.
        in_channels: channels of the image.
        size: height and width of the image.
        num_classes: K; used only with a name.
    """
    if isinstance(network, str):
        return _macs_of_name(network, in_channels, size, num_classes)
    return module_macs(network, torch.empty(1, in_channels, size, size))


@cache
def _macs_of_name(name: str, in_channels: int, size: int, num_classes: int) -> int:
    with torch.device("meta"):
        network = zoo.create(name, num_classes=num_classes, in_channels=in_channels)
    return module_macs(network, torch.empty(1, in_channels, size, size, device="meta"))


def module_macs(module: nn.Module, *inputs: Any) -> int:
    """Count the MACs of one call: convolutions and linear layers, without biases.

    Batch norm, pooling and additions are not counted. The call runs in eval mode on a copy without
    values, on the meta device.

    Args:
        module: any module.
        *inputs: arguments; only the shapes of tensors matter. One row gives the cost of one image.
    """
    shapes = copy.deepcopy(module).to("meta", torch.float32).eval()
    total = 0

    def count(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        total += layer_macs(layer, args[0], output)

    for layer in shapes.modules():
        if isinstance(layer, COUNTED):
            layer.register_forward_hook(count)
    with torch.no_grad():
        shapes(*(_shape(x) for x in inputs))
    return total


def _shape(x: Any) -> Any:
    """Return a tensor of the same shape without values; other objects unchanged."""
    if not isinstance(x, Tensor):
        return x
    return x.to("meta", torch.float32 if x.is_floating_point() else x.dtype)


COUNTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def layer_macs(layer: nn.Module, x: Tensor, output: Tensor) -> int:
    """Count the MACs of one call of a layer of a type in ``COUNTED``."""
    if isinstance(layer, nn.ConvTranspose2d):  # weight [C_in, C_out / groups, k, k]
        return x.numel() * layer.weight[0].numel()
    assert isinstance(layer, nn.Conv2d | nn.Linear)  # weight [C_out, C_in / groups, k, k]
    return output.numel() * layer.weight[0].numel()
