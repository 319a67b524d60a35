"""The contract of a distillation method: read this first.

A method is the loss term that is its own, and what that term learns. The engine owns everything
else: both forward passes, cross-entropy, the KL term, the optimiser, the phases, precision, and the
ranks: where several processes train one run, a method sees the whole batch in each of them.

Shape letters, the same everywhere: B batch, K classes, N training samples, C channels,
H and W height and width, D width of an embedding, S and T number of student and teacher stages.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

from torch import Tensor, nn


class Incompatible(ValueError):
    """This method cannot work on this pair; the run is recorded as skipped, with the message."""


@dataclass(frozen=True)
class Features:
    """What a network shows of itself on one batch.

    Attributes:
        stem: first convolution block's map, [B, C, H, W].
        stages: the maps after each stage, shallow to deep, each [B, C_i, H_i, W_i].
        preacts: same shapes as ``stages``: the input of the ReLU nearest each stage's end, or the
            stage itself where there is none; each model file says which.
        embedding: the pooled vector that enters the classifier, [B, D].
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

        A pre-activation may be the stage itself. The results are then the same object, too.
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
        epoch: number of the running epoch, from 1.
        progress: share of the training done, in [0, 1).
        step: number of optimiser steps done before this batch, from 0.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    epoch: int = 1
    progress: float = 0.0
    step: int = 0


@dataclass(frozen=True)
class Setup:
    """What a method may know when it is built.

    Attributes:
        student: ``Features`` of a dry run: read shapes off them, not values.
        teacher: the same of the teacher; the student's own where there is no teacher.
        train_labels: labels of the training set, [N]; ``len`` is N.
        batch_size: constant, because the last, smaller batch of an epoch is dropped.
        num_classes: K.
        teacher_head: the teacher's frozen classifier (an ``nn.Linear``), or None.
        seed: the run's seed, for a method that keeps its own generator.
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
    """Weights of ``gamma * CE + alpha * T^2 * KL`` that a method asks for; None: the protocol's."""

    gamma: float | None = None
    alpha: float | None = None
    temperature: float | None = None


class Method(nn.Module, ABC):
    """Base of every method. One file, one subclass; the file's name is the method's name.

    Hyper-parameters are keyword-only arguments of ``__init__`` with the paper's defaults. What is
    learned is a submodule, what is remembered a registered buffer: device, checkpoint and optimiser
    follow by themselves.

    Attributes:
        family: what is matched: logit, feature map, embedding, relation or contrastive.
        beta: default weight of the term.
        objective: default weights of the other two terms, where the method replaces them (SimKD).
        needs_teacher: False for a method that trains without one.
        needs_teacher_when: values of hyper-parameters with which it needs one after all.
    """

    family: str = "other"
    beta: float = 1.0
    objective: Objective = Objective()
    needs_teacher: bool = True
    needs_teacher_when: ClassVar[dict[str, Any]] = {}

    def __init__(self, setup: Setup) -> None:
        super().__init__()

    @abstractmethod
    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        """The method's own term, a scalar; teacher tensors are constants.

        A method with ``needs_teacher = False`` is given the student's own features, detached, as
        ``t``.
        """

    def pretrain(self, student: nn.Module) -> Sequence[nn.Module]:
        """The modules that a phase before training trains; none: there is no such phase.

        They are in train mode during the phase, everything else of the student in eval mode. After
        it, all of them that are not the student's are frozen.
        """
        return ()

    def pretrain_loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        """That phase's only loss, a scalar; ``beta`` does not weigh it.

        Whoever has such a phase has to define it; most have none, so it is not abstract.
        """
        raise NotImplementedError(f"{type(self).__name__} has a first phase but no pretrain_loss")

    def predict(self, s: Features) -> Tensor:
        """Logits at test time, [B, K], where the student's own are not the answer (SimKD)."""
        return s.logits

    def trace(self, s: Features, t: Features) -> dict[str, Tensor]:
        """Small tensors to keep, by name, e.g. attention weights; for analyses, by default none.

        Asked without gradients and in eval mode, once an epoch on its last training batch, for
        ``runs/<id>/trace.csv``, and by ``kdbench analyse``. It has to leave the method as it was.
        A tensor ``attention``, [S, T], says how much each stage of the student learns from each of
        the teacher's.
        """
        return {}

    def deployed(self) -> Sequence[nn.Module]:
        """Own modules that stay at inference, beside the student (SimKD's projector)."""
        return ()
