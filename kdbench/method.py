"""The contract of a distillation method: read this first.

A method is one loss term and the modules that this term trains. The engine owns everything else:
both forward passes, cross-entropy, the KL term, the optimiser, the phases, precision and the ranks.
If several processes train one run, the method sees the whole batch in each of them.

Shape letters, the same everywhere: B batch, K classes, N training samples, C channels,
H and W height and width, D width of an embedding, S and T number of student and teacher stages.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from kdbench.bilevel import Inner as Inner
from kdbench.bilevel import MetaOptimizer as MetaOptimizer
from kdbench.features import Batch as Batch
from kdbench.features import Features as Features


class Incompatible(ValueError):
    """A method cannot work on this pair; the run is recorded as skipped, with the message."""


class ContractBroken(RuntimeError):
    """A method does what the contract forbids; the run is recorded as failed, with the message."""


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
        student_head: the student's live classifier as a function, [..., D] to [..., K]; not a
            module, so that its weights are not registered, decayed and saved twice.
        teacher_norms: for each of the teacher's ``preacts`` a frozen copy of the batch norm that
            made it (the last one of a residual block), or None if there is none.
        teacher_from: ``teacher_from(k, x)`` runs the teacher's stages after the first ``k`` on a
            map x, [B, C_k, H_k, W_k], instead of ``stages[k - 1]``. Its parameters are frozen, its
            batch norms use statistics of the batch and are not updated; gradients reach x. Earlier
            entries of the ``Features`` it returns mean nothing. None without a teacher.
        student_from: the same for the student; its parameters get gradients.
        new_student: returns an untrained network of the student's architecture; its parameters and
            buffers are loaded by the method (copies of peers).
    """

    student: Features
    teacher: Features
    train_labels: Tensor
    batch_size: int
    num_classes: int
    teacher_head: nn.Module | None = None
    seed: int = 0
    student_head: Callable[[Tensor], Tensor] | None = None
    teacher_norms: tuple[nn.BatchNorm2d | None, ...] = ()
    teacher_from: Callable[[int, Tensor], Features] | None = None
    student_from: Callable[[int, Tensor], Features] | None = None
    new_student: Callable[[], nn.Module] | None = None


@dataclass(frozen=True)
class Group:
    """Networks of the student's architecture that learn together (``Method.group``).

    The first, with the initial weights of every other row's student, is deployed: ``s`` itself and
    ``s.peers[0]``. The objective's cross-entropy and KL are the first's; those of the others belong
    to the method's term.

    Attributes:
        size: number of networks, at least 2.
        shared: stages that all networks have in common, the stem included; counted from the end if
            negative, so -1: all but the last. None: nothing, not even the stem.
        rescale: divide the gradient that enters the shared stages by ``size``.
    """

    size: int
    shared: int | None = None
    rescale: bool = False


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
        family: what the method matches: logit, feature map, embedding, relation or contrastive; or
            online, if networks learn together without a trained teacher.
        beta: default weight of the term.
        objective: default weights of the other two terms, if the method replaces them (SimKD).
        needs_teacher: False for a method that trains without a teacher.
        needs_teacher_when: values of hyper-parameters that make a teacher necessary after all.
        pretrains_when: values of hyper-parameters with which ``pretrain`` returns modules; empty if
            it always does.
        version: raised by a change of a built-in method's results, which gives its runs new ids.
        added_later: names of hyper-parameters that did not exist in an earlier version. A run's id
            leaves them out at their defaults, which must therefore never change.
        capturable: False if a step waits for the device, or if its operations change from step to
            step, so that it cannot be a CUDA graph; docs/gpu.md lists the rules.
        brings_peers: whether ``group`` may return a group; at most one method of a row may.
        one_rank: True if the method cannot train on several ranks.
        views: number of views of each image; 2: also ``Batch.views[0]``, strongly augmented.
        meta_optimizer: optimiser of the modules that ``meta`` returns.
    """

    family: str = "other"
    beta: float = 1.0
    objective: Objective = Objective()
    needs_teacher: bool = True
    needs_teacher_when: ClassVar[dict[str, Any]] = {}
    pretrains_when: ClassVar[dict[str, Any]] = {}
    version: int = 1
    added_later: ClassVar[tuple[str, ...]] = ()
    capturable: bool = True
    brings_peers: bool = False
    one_rank: bool = False
    views: int = 1
    meta_optimizer: ClassVar[MetaOptimizer] = MetaOptimizer()

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

    @classmethod
    def group(cls, **hyper: Any) -> Group | None:
        """Return what the student consists of while it trains; None: of one network.

        Args:
            hyper: all hyper-parameters of the method.
        """
        return None

    def answers(self, s: Features) -> dict[str, Tensor]:
        """Return other predictions whose accuracies are reported, by name, e.g. ``ensemble``.

        Each is [B, K], or [P, B, K], whose P accuracies are averaged (``mean``). Called at test
        time; the names must be the same in every call.
        """
        return {}

    def prepare(self, examples: Iterable[tuple[Features, Tensor]]) -> None:
        """Compute buffers from the training set before the first step; by default nothing.

        Called once per run, not again when it is resumed. A method that overrides it needs a
        teacher.

        Args:
            examples: the teacher's features and the labels of all training images, in order and
                without augmentation, in batches. They are made when they are asked for.
        """

    def meta(self) -> Sequence[nn.Module]:
        """Return own modules that ``adapt`` trains; the run's optimiser does not train them."""
        return ()

    def adapt(self, inner: Inner) -> None:
        """Look ahead after an optimiser step, and train ``meta``; by default nothing.

        Called after every step of the main phase, without autocast.
        """
