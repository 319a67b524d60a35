"""Trained and frozen modules in each phase of a run."""

from collections.abc import Iterable, Sequence
from typing import Literal

from torch import nn

from kdbench.grid.settings import Training
from kdbench.method import ContractBroken, Method
from kdbench.models.peers import networks
from kdbench.registry.process_state import kept
from kdbench.training.dot import Dot
from kdbench.training.sgd import Sgd

Phase = Literal["pretrain", "train", "end"]


class Phases:
    """A student and its methods, some modules of which train in a pretraining phase.

    Attributes:
        pretrained: the methods that have a pretraining phase.
        first: the modules that train in the pretraining phase.
        learnable: every parameter that trains in any phase; parameters that a method itself froze
            (a reused classifier) stay frozen.
        meta: each method's parameters that ``adapt`` trains; they are not among ``learnable``.
    """

    def __init__(self, student: nn.Module, methods: nn.ModuleList) -> None:
        self.student, self.methods = student, methods
        self.pretrained: list[Method] = []
        self.first: list[nn.Module] = []
        for method in methods:
            assert isinstance(method, Method)
            with kept(f"{type(method).__name__}.pretrain"):
                modules = list(method.pretrain(networks(student)[0]))
            self.first += modules
            self.pretrained += [method] if modules else []
        self.meta = {m: meta_parameters(m) for m in methods if isinstance(m, Method)}
        later = {id(p) for params in self.meta.values() for p in params}
        learnable = [p for p in self._all().parameters() if p.requires_grad]
        self.learnable = [p for p in learnable if id(p) not in later]

    def optimizer(self, phase: Phase, training: Training) -> Sgd | Dot:
        """Unfreeze the parameters that train in a phase, and return a new optimiser for them.

        A pretraining phase has one loss, without a task's part, and so is always SGD's.
        """
        first = {id(p) for module in self.first for p in module.parameters()}
        frozen = {id(p) for module in self._frozen() for p in module.parameters()}
        self._all().requires_grad_(False)
        for p in self.learnable:
            p.requires_grad_(id(p) in first if phase == "pretrain" else id(p) not in frozen)
        trained: Sequence[nn.Parameter] = [p for p in self._all().parameters() if p.requires_grad]
        if training.optimizer and phase != "pretrain":
            return Dot(
                trained,
                lr=training.lr,
                momentum=training.momentum,
                delta=training.optimizer.dot.delta,
                weight_decay=training.weight_decay,
            )
        return Sgd(
            trained,
            lr=training.lr,
            momentum=training.momentum,
            nesterov=training.nesterov,
            weight_decay=training.weight_decay,
            fused=True,
        )

    def set_modes(self, phase: Phase) -> None:
        """Set train mode for the modules that train in a phase, and eval mode for all others."""
        self._all().train(phase != "pretrain")
        if phase == "pretrain":
            for module in self.first:
                module.train()
        else:
            for module in self._frozen():
                module.eval()

    def _all(self) -> nn.ModuleList:
        return nn.ModuleList([self.student, self.methods])

    def _frozen(self) -> Iterable[nn.Module]:
        """Yield the pretraining phase's modules outside the student; they stay fixed after it."""
        students = {id(p) for p in self.student.parameters()}
        for module in self.first:
            if not any(id(p) in students for p in module.parameters()):
                yield module


def meta_parameters(method: Method) -> list[nn.Parameter]:
    """Return the parameters that ``adapt`` trains; those that the method itself froze stay frozen.

    Raises:
        ContractBroken: ``meta`` returns what is not a module of the method.
    """
    who = f"{type(method).__name__}.meta"
    with kept(who):
        modules = list(method.meta())
    own = {*method.modules()}
    if any(module not in own for module in modules):
        raise ContractBroken(f"{who} returned what is not one of the method's own modules")
    params = {id(p): p for module in modules for p in module.parameters()}
    return [p for p in params.values() if p.requires_grad]
