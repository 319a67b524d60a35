"""Cost of networks, and of groups that learn together, counted on shapes alone."""

from dataclasses import dataclass, replace
from functools import cache, partial

import torch
from torch import Tensor, nn

from kdbench.method import Features, Group
from kdbench.models import size as cost
from kdbench.models import zoo
from kdbench.models.network import Network
from kdbench.models.peers import Peers


@dataclass(frozen=True)
class DataShape:
    """The properties of a data set that determine the cost of training on it.

    Attributes:
        size: height and width of the images.
        train: number of training images.
        test: number of test images.
    """

    channels: int
    size: int
    classes: int
    train: int
    test: int


@dataclass(frozen=True)
class NetworkCost:
    """A network's MACs and bytes per image, and its parameters.

    Attributes:
        kept: bytes that a training forward keeps for the backward pass, features included.
        features: bytes of its ``Features``.
        widest: bytes of the two largest layers' outputs, which a forward pass holds at once.
    """

    macs: int = 0
    parameters: int = 0
    kept: float = 0.0
    features: float = 0.0
    widest: float = 0.0

    @property
    def inference(self) -> float:
        """Peak bytes of a forward pass without gradients."""
        return self.features + self.widest

    def in_precision(self, bf16: bool) -> "NetworkCost":
        """Return the cost with every layer's output in bf16 if ``bf16``, else unchanged."""
        if not bf16:
            return self
        kept, features, widest = self.kept / 2, self.features / 2, self.widest / 2
        return replace(self, kept=kept, features=features, widest=widest)

    def step(self, batch_size: int) -> float:
        """Return the peak bytes of activations and gradients in a training step."""
        return batch_size * (self.kept + self.widest) + 4 * self.parameters


def network_cost(name: str, shape: DataShape, group: Group | None = None) -> NetworkCost:
    """Return the cost of a network, or of a group of them, on images of this shape.

    Stages that a group shares are counted once.

    Raises:
        Incompatible: the group shares more stages than the network has.
    """
    return run_on_meta(name, shape, group)[0]


@cache
def run_on_meta(
    name: str, shape: DataShape, group: Group | None = None
) -> tuple[NetworkCost, Features]:
    """Return a network's or group's cost, and its features of two images on the meta device."""
    network = network_on_meta(name, shape, group)
    sizes: list[int] = []
    macs: list[int] = []
    kept: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        kept.append(x)
        return x

    def count(layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        sizes.append(out.numel() * 4)
        if isinstance(layer, cost.COUNTED):
            macs.append(cost.layer_macs(layer, args[0], out))

    leaves = [module for module in network.modules() if not list(module.children())]
    hooks = [module.register_forward_hook(count) for module in leaves]
    images = torch.empty(2, shape.channels, shape.size, shape.size, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        network_features: Features = network(images)
    for hook in hooks:
        hook.remove()
    maps = [x for name, x in network_features.named() if not name.endswith("logits")]
    counted = NetworkCost(
        macs=sum(macs) // 2,
        parameters=cost.params(network),
        kept=_storage_bytes(*kept, *maps, without=network) / 2,
        features=_storage_bytes(*maps, without=network) / 2,
        widest=sum(sorted(sizes)[-2:]) / 2,
    )
    return counted, network_features.detached()


def _storage_bytes(*tensors: Tensor, without: nn.Module) -> int:
    """Return the bytes of tensors' storages, each counted once, without the module's own."""
    owned = {_storage_id(x) for x in (*without.parameters(), *without.buffers())}
    sizes = {_storage_id(x): x.numel() * x.element_size() for x in tensors}
    return sum(size for piece, size in sizes.items() if piece not in owned)


def _storage_id(x: Tensor) -> int:
    """Return an identifier of a tensor's storage, even on the meta device."""
    return x.untyped_storage()._cdata


@cache
def network_on_meta(name: str, shape: DataShape, group: Group | None = None) -> nn.Module:
    """Build a network or a group of them on the meta device, in eval mode."""
    with torch.device("meta"):
        return student_of(name, shape, group).eval()


def student_of(name: str, shape: DataShape, group: Group | None) -> Network | Peers:
    """Build a network, or the networks of a group."""
    new = partial(zoo.create, name, num_classes=shape.classes, in_channels=shape.channels)
    return Peers([new() for _ in range(group.size)], group) if group else new()


def features_of(name: str, shape: DataShape, batch: int, group: Group | None = None) -> Features:
    """Return features of the right shapes; a term's cost does not depend on their values."""
    return run_on_meta(name, shape, group)[1].map(lambda x: torch.zeros(batch, *x.shape[1:]))
