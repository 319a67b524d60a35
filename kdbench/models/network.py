"""Base class of all networks, which map images to ``Features``."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Features


class Network(nn.Module, ABC):
    """Base class of all architectures; a family implements ``describe`` and ``trunk``.

    A module with a convolution that feeds only a batch norm names both in a class attribute
    ``conv_bn``. Neighbours in an ``nn.Sequential`` need not be named.

    Attributes:
        head_name: key of the classifier in the state dict.
        min_size: smallest height and width that the pooling allows.
        conv_bn: pairs (convolution, batch norm) among the module's direct children.
    """

    head_name: ClassVar[str]
    min_size: int = 1
    conv_bn: ClassVar[tuple[tuple[str, str], ...]] = ()

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels

    def forward(self, images: Tensor) -> Features:
        """Map images, [B, C, H, W], to ``Features``; every batch norm runs once."""
        if images.dim() != 4 or images.shape[1] != self.in_channels:
            wanted = f"[B, {self.in_channels}, H, W]"
            raise ValueError(
                f"{type(self).__name__} takes images {wanted}, not {list(images.shape)}"
            )
        if min(images.shape[-2:]) < self.min_size:
            raise ValueError(
                f"{type(self).__name__} needs images of at least {self.min_size}x{self.min_size}"
                f" pixels, not {images.shape[-2]}x{images.shape[-1]}"
            )
        return self.describe(images)

    @abstractmethod
    def describe(self, images: Tensor) -> Features:
        """Run the forward pass on images of a valid shape."""

    @abstractmethod
    def trunk(self) -> list[nn.Module]:
        """Return the modules that compute the stages; AB and FSP pre-train them."""

    @property
    def head(self) -> nn.Linear:
        """The classifier, embedding [B, D] to logits [B, K]."""
        module = self.get_submodule(self.head_name)
        assert isinstance(module, nn.Linear)
        return module

    def finish(
        self, stem: Tensor, stages: Sequence[Tensor], preacts: Sequence[Tensor], last: Tensor
    ) -> Features:
        """Build ``Features`` from the maps; the embedding is the global average of ``last``."""
        embedding = last.mean((2, 3))  # [B, D]
        return Features(stem, tuple(stages), tuple(preacts), embedding, self.head(embedding))

    def folds(self) -> list[tuple[str, str]]:
        """Return the full names of all (convolution, batch norm) pairs that can be folded."""
        pairs = []
        for path, module in self.named_modules():
            prefix = f"{path}." if path else ""
            pairs += [(prefix + conv, prefix + bn) for conv, bn in _conv_bn(module)]
        return pairs


def _conv_bn(module: nn.Module) -> list[tuple[str, str]]:
    """Return the pairs among a module's children that are still a convolution and a batch norm."""
    pairs: Iterable[tuple[str, str]] = getattr(module, "conv_bn", ())
    if isinstance(module, nn.Sequential):
        names = list(module._modules)
        pairs = pairwise(names)
    return [
        (conv, bn)
        for conv, bn in pairs
        if isinstance(getattr(module, conv), nn.Conv2d)
        and isinstance(getattr(module, bn), nn.BatchNorm2d)
    ]


def run_stage(blocks: Iterable[nn.Module], x: Tensor) -> tuple[Tensor, Tensor]:
    """Run blocks that end before a ReLU; return the last map after and before that ReLU."""
    *first, last = blocks
    for block in first:
        x = F.relu(block(x), inplace=True)
    before: Tensor = last(x)
    return F.relu(before), before


def he_normal(network: nn.Module) -> None:
    """Draw all convolution weights from N(0, 2 / (k*k*C_out)), grouped or not; zero the biases."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            height, width = module.kernel_size
            nn.init.normal_(module.weight, 0.0, (2 / (height * width * module.out_channels)) ** 0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
