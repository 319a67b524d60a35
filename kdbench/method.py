"""The contract of a distillation method: read this first.

A method is one loss term and the modules that this term trains. The engine owns everything else:
both forward passes, cross-entropy, the KL term, the optimiser, the phases, precision and the ranks.
If several processes train one run, the method sees the whole batch in each of them.

Shape letters, the same everywhere: B batch, K classes, N training samples, C channels,
H and W height and width, D width of an embedding, S and T number of student and teacher stages.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdbench import rng


class Incompatible(ValueError):
    """A method cannot work on this pair; the run is recorded as skipped, with the message."""


class ContractBroken(RuntimeError):
    """A method does what the contract forbids; the run is recorded as failed, with the message."""


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
    """

    stem: Tensor
    stages: tuple[Tensor, ...]
    preacts: tuple[Tensor, ...]
    embedding: Tensor
    logits: Tensor

    def named(self) -> Iterator[tuple[str, Tensor]]:
        """Yield every tensor with its name: ``stem``, ``stages[0]``, ..., ``logits``."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                yield from ((f"{field.name}[{i}]", x) for i, x in enumerate(value))
            else:
                yield field.name, value

    def map(self, function: Callable[[Tensor], Tensor]) -> "Features":
        """Apply a function to every tensor; a tensor that occurs twice is mapped once.

        A pre-activation may be the stage itself; both results are then the same object, too.
        """
        results: dict[int, Tensor] = {}

        def once(x: Tensor) -> Tensor:
            if id(x) not in results:
                results[id(x)] = function(x)
            return results[id(x)]

        changed: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            changed[field.name] = (
                tuple(once(x) for x in value) if isinstance(value, tuple) else once(value)
            )
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

    On a GPU, a step that reads ``progress`` or ``step`` cannot be a CUDA graph, and so is slower;
    one that reads ``epoch`` is recorded again in each epoch.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    epoch: int = 1
    progress: float = 0.0
    step: int = 0

    def generator(self, seed: int, *purpose: str | int) -> torch.Generator:
        """Return a generator for this step's random numbers, on the device of the batch.

        Its state depends only on ``seed``, ``purpose`` and ``step``, so resuming needs no saved
        state. Draw from it and drop it: a replayed step seeds it anew. Do not seed generators with
        ``step`` in a method's own code, because a captured step would draw the same numbers again.

        CPUs and GPUs draw different numbers from the same seed, as everywhere in torch.
        """
        generator = torch.Generator(self.labels.device)
        return generator.manual_seed(rng.key(seed, *purpose, self.step))


@dataclass(frozen=True)
class Setup:
    """The information that a method is built from.

    Attributes:
        student: ``Features`` of a dry run; use their shapes, not their values.
        teacher: ``Features`` of the teacher's dry run; the student's if the run has no teacher.
        train_labels: labels of the training set, [N].
        batch_size: B; constant, because the last, smaller batch of an epoch is dropped.
        num_classes: K.
        teacher_head: the teacher's frozen classifier (an ``nn.Linear``), or None.
        seed: seed of the run, for a method with its own generator.
    """

    student: Features
    teacher: Features
    train_labels: Tensor
    batch_size: int
    num_classes: int
    teacher_head: nn.Module | None = None
    seed: int = 0


@dataclass(frozen=True)
class Objective:
    """Weights of ``gamma * CE + alpha * T^2 * KL`` that a method sets; None: the protocol's."""

    gamma: float | None = None
    alpha: float | None = None
    temperature: float | None = None


class Method(nn.Module, ABC):
    """Base class of every method: one subclass per file, and the file has the method's name.

    Hyper-parameters are keyword-only arguments of ``__init__`` with the paper's defaults. Register
    trained parts as submodules and state as buffers; devices, checkpoints and the optimiser then
    need no further code.

    A cohort's methods share the batch, the teacher's features and the process. A method must not
    write into tensors that it is given, nor change settings of torch or of the process; its run
    would fail (``ContractBroken``). The same holds for layers that are made after ``__init__`` and
    for state in Python that neither ``state_dict`` nor ``get_extra_state`` holds.

    Attributes:
        family: what the method matches: logit, feature map, embedding, relation or contrastive.
        beta: default weight of the term.
        objective: default weights of the other two terms, if the method replaces them (SimKD).
        needs_teacher: False for a method that trains without a teacher.
        needs_teacher_when: values of hyper-parameters that make a teacher necessary after all.
        pretrains_when: values of hyper-parameters with which ``pretrain`` returns modules; empty if
            it always does.
        version: raised by a change of a built-in method's results, which gives its runs new ids.
        capturable: False if a step waits for the device, so that it cannot be a CUDA graph;
            docs/gpu.md lists what else a step must not do.
    """

    family: str = "other"
    beta: float = 1.0
    objective: Objective = Objective()
    needs_teacher: bool = True
    needs_teacher_when: ClassVar[dict[str, Any]] = {}
    pretrains_when: ClassVar[dict[str, Any]] = {}
    version: int = 1
    capturable: bool = True

    def __init__(self, setup: Setup) -> None:
        super().__init__()

    @abstractmethod
    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        """Return the method's loss term, a scalar; teacher tensors are constants.

        A method with ``needs_teacher = False`` gets the student's own features, detached, as ``t``.
        """

    def pretrain(self, student: nn.Module) -> Sequence[nn.Module]:
        """Return the modules that a pretraining phase trains; without modules, no such phase.

        These modules are in train mode during the phase, the rest of the student is in eval mode.
        Modules among them that do not belong to the student are frozen afterwards.
        """
        return ()

    def pretrain_loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        """Return the only loss of the pretraining phase, a scalar; ``beta`` does not apply.

        Required for a method with such a phase. Not abstract, because most methods have none.
        """
        name = type(self).__name__
        raise NotImplementedError(f"{name} has a pretraining phase but no pretrain_loss")

    def predict(self, s: Features) -> Tensor:
        """Return the logits at test time, [B, K]; for SimKD they are not the student's."""
        return s.logits

    def trace(self, s: Features, t: Features) -> dict[str, Tensor]:
        """Return small tensors for analyses, by name, e.g. attention weights; by default none.

        Called without gradients and in eval mode: once an epoch on its last training batch, for
        ``runs/<id>/trace.csv``, and by ``kdbench analyse``. It must not change the method. A tensor
        ``attention``, [S, T], gives how much each student stage learns from each teacher stage.
        """
        return {}

    def deployed(self) -> Sequence[nn.Module]:
        """Return own modules that inference needs besides the student (SimKD's projector)."""
        return ()
