"""The tensors of a step: what networks return, and the batch that they got.

``kdbench.method`` has the same names; methods import them from there.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from kdbench import rng


@dataclass(frozen=True)
class Features:
    """The outputs of a network on one batch.

    Attributes:
        stem: map of the first convolution block, [B, C, H, W].
        stages: map after each stage, shallow to deep, each [B, C_i, H_i, W_i].
        preacts: input of the ReLU nearest the end of each stage, shapes as in ``stages``; the stage
            itself if it has no such ReLU. Each model file documents its choice.
        embedding: pooled vector that enters the classifier, [B, D].
        logits: [B, K].
        peers: with networks that learn together (``Method.group``) the features of each, the one
            that is deployed first; empty with one network.
        views: features of ``Batch.views``; empty unless a method asks for views.
        last: map whose mean over positions is the embedding, [B, D, H, W]; often the last stage,
            but not in every network. None if the network does not return it.
    """

    stem: Tensor
    stages: tuple[Tensor, ...]
    preacts: tuple[Tensor, ...]
    embedding: Tensor
    logits: Tensor
    peers: tuple["Features", ...] = ()
    views: tuple["Features", ...] = ()
    last: Tensor | None = None

    def named(self) -> Iterator[tuple[str, Tensor]]:
        """Yield every tensor with its name: ``stem``, ``stages[0]``, ..., ``peers[1].logits``."""
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            for i, x in enumerate(value if isinstance(value, tuple) else (value,)):
                name = f"{field.name}[{i}]" if isinstance(value, tuple) else field.name
                if isinstance(x, Features):
                    yield from ((f"{name}.{inner}", y) for inner, y in x.named())
                else:
                    yield name, x

    def map(self, function: Callable[[Tensor], Tensor]) -> "Features":
        """Apply a function to every tensor; a tensor that occurs twice is mapped once.

        A pre-activation may be the stage itself; both results are then the same object, too.
        """
        return self._map(function, {})

    def _map(self, function: Callable[[Tensor], Tensor], results: dict[int, Tensor]) -> "Features":
        """Map every tensor that is not yet in ``results``, by id, and add it there."""
        # A recursive closure would keep the results until Python next looks for cycles.
        changed: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            mapped: list[Any] = []
            for x in value if isinstance(value, tuple) else (value,):
                if isinstance(x, Features):
                    mapped.append(x._map(function, results))
                    continue
                if id(x) not in results:
                    results[id(x)] = function(x)
                mapped.append(results[id(x)])
            changed[field.name] = tuple(mapped) if isinstance(value, tuple) else mapped[0]
        return replace(self, **changed)

    def detached(self) -> "Features":
        """Return the same features as constants, which pass no gradient."""
        return self.map(Tensor.detach)


@dataclass(frozen=True)
class Batch:
    """One training batch.

    Attributes:
        images: [B, 3, H, W], augmented and normalised.
        labels: [B], int64.
        index: positions of the samples in the training set, [B], int64.
        epoch: number of the current epoch, from 1.
        progress: share of the training that is done, in [0, 1).
        step: number of optimiser steps before this batch, from 0.
        epochs: number of epochs of the current phase.
        views: the same images augmented once more, strongly, each [B, 3, H, W]; empty unless a
            method asks for them (``Method.views``).

    On a GPU, a step that reads ``progress`` or ``step`` cannot be a CUDA graph, and so is slower;
    one that reads ``epoch`` is recorded again in each epoch.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    epoch: int = 1
    progress: float = 0.0
    step: int = 0
    epochs: int = 1
    views: tuple[Tensor, ...] = ()

    def generator(self, seed: int, *purpose: str | int) -> torch.Generator:
        """Return a generator for this step's random numbers, on the device of the batch.

        Its state depends only on ``seed``, ``purpose`` and ``step``, so resuming needs no saved
        state. Draw from it and drop it: a replayed step seeds it anew. Do not seed generators with
        ``step`` in a method's own code, because a captured step would draw the same numbers again.

        CPUs and GPUs draw different numbers from the same seed, as everywhere in torch.
        """
        generator = torch.Generator(self.labels.device)
        return generator.manual_seed(rng.key(seed, *purpose, self.step))
