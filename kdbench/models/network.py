"""Base class of all networks, which map images to ``Features``."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from itertools import pairwise
from typing import ClassVar, NamedTuple, Self

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Features


class Lower(NamedTuple):
    """What the stem and the first stages of a network computed.

    Attributes:
        stem: map of the first convolution block, [B, C, H, W].
        stages: maps of the first k stages.
        preacts: the pre-activations known so far. The last stage's is missing if the next stage
            computes it (WRN). The next stage's is there, too, if the stem is that stage (v8w16).
    """

    stem: Tensor
    stages: tuple[Tensor, ...] = ()
    preacts: tuple[Tensor, ...] = ()

    @property
    def last(self) -> Tensor:
        """The deepest map."""
        return self.stages[-1] if self.stages else self.stem

    def then(self, stage: Tensor, *preacts: Tensor) -> "Lower":
        """Add the map of the next stage and the pre-activations known with it."""
        return Lower(self.stem, (*self.stages, stage), (*self.preacts, *preacts))


class Network(nn.Module, ABC):
    """Base class of all architectures; a family implements ``begin``, ``stage`` and ``end``.

    A network can be cut after the stem and after every stage, with the same bits as a whole one.

    A module with a convolution that feeds only a batch norm names both in a class attribute
    ``conv_bn``. Neighbours in an ``nn.Sequential`` need not be named.

    Attributes:
        head_name: key of the classifier in the state dict.
        parts: names of the modules of the stem, and of each stage.
        min_size: smallest height and width that the pooling allows.
        conv_bn: pairs (convolution, batch norm) among the module's direct children.
    """

    head_name: ClassVar[str]
    parts: tuple[tuple[str, ...], ...]
    min_size: int = 1
    conv_bn: ClassVar[tuple[tuple[str, str], ...]] = ()

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels

    def forward(self, images: Tensor) -> Features:
        """Map images, [B, C, H, W], to ``Features``; every batch norm runs once."""
        return self.describe(images)

    def describe(self, images: Tensor) -> Features:
        """Run the forward pass."""
        return self.onward(self.upto(images, 0))

    def upto(self, images: Tensor, k: int) -> Lower:
        """Run the stem and the first ``k`` stages.

        Raises:
            ValueError: the images have other channels, or are too small.
        """
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
        lower = self.begin(images)
        for _ in range(k):
            lower = self.stage(lower)
        return lower

    def onward(self, lower: Lower) -> Features:
        """Run the stages that are not in ``lower``, and the classifier."""
        for _ in range(len(lower.stages), self.num_stages):
            lower = self.stage(lower)
        return self.end(lower)

    @abstractmethod
    def begin(self, images: Tensor) -> Lower:
        """Run the stem."""

    def stage(self, lower: Lower) -> Lower:
        """Run the next stage; here a module of blocks that end before a ReLU."""
        blocks = self.next_module(lower)
        assert isinstance(blocks, nn.Sequential)
        return lower.then(*run_stage(blocks, lower.last))

    def next_module(self, lower: Lower) -> nn.Module:
        """Return the module of the next stage, if it is one."""
        [name] = self.parts[len(lower.stages) + 1]
        return self.get_submodule(name)

    def end(self, lower: Lower) -> Features:
        """Run what follows the last stage; here average pooling and the classifier."""
        return self.finish(lower, lower.last)

    @property
    def num_stages(self) -> int:
        """Number of stages, also of a network without the first ones."""
        return len(self.parts) - 1

    def without(self, k: int) -> Self:
        """Delete the modules of the stem and of the first ``k`` stages; return this network.

        It can only run ``onward`` then. Names of the other modules do not change.
        """
        for name in (name for names in self.parts[: k + 1] for name in names):
            parent, _, leaf = name.rpartition(".")
            delattr(self.get_submodule(parent), leaf)
        return self

    def trunk(self) -> list[nn.Module]:
        """Return the modules that compute the stages; AB and FSP pre-train them."""
        return [self.get_submodule(name) for names in self.parts for name in names]

    def norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        """Return the batch norm that makes each of the ``preacts``, or None if there is none.

        For a residual sum, the last one of the block; the shortcut's is left out.
        """
        return ()

    @property
    def head(self) -> nn.Linear:
        """The classifier, embedding [B, D] to logits [B, K]."""
        module = self.get_submodule(self.head_name)
        assert isinstance(module, nn.Linear)
        return module

    def finish(self, lower: Lower, last: Tensor) -> Features:
        """Build ``Features`` from the maps; the embedding is the global average of ``last``."""
        embedding = last.mean((2, 3))  # [B, D]
        return Features(*lower, embedding, self.head(embedding), last=last)

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


def norm_in(module: nn.Module, name: str) -> nn.BatchNorm2d:
    """Return a batch norm of a module by its dotted name."""
    norm = module.get_submodule(name)
    assert isinstance(norm, nn.BatchNorm2d)
    return norm


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
