"""What learns in which phase of a run, and what stays as an earlier phase left it."""

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import nn

from kdbench.grid.settings import Training
from kdbench.method import Method

Phase = Literal["pretrain", "train", "end"]


class Phases:
    """A student and its methods, part of them trained before the others.

    Attributes:
        pretrained: the methods that have a first phase. learnable: every parameter that is ever to
            learn; what a method froze itself (a reused classifier) stays frozen.
    """

    def __init__(self, student: nn.Module, methods: nn.ModuleList) -> None:
        self.student, self.methods = student, methods
        self.pretrained: list[Method] = []
        self.first: list[nn.Module] = []
        for method in methods:
            assert isinstance(method, Method)
            modules = list(method.pretrain(student))
            self.first += modules
            self.pretrained += [method] if modules else []
        self.learnable = [p for p in self._all().parameters() if p.requires_grad]

    def optimizer(self, phase: Phase, training: Training) -> torch.optim.Optimizer:
        """Let learn what learns in a phase, and give it a fresh optimiser."""
        first = {id(p) for module in self.first for p in module.parameters()}
        frozen = {id(p) for module in self._frozen() for p in module.parameters()}
        self._all().requires_grad_(False)
        for p in self.learnable:
            p.requires_grad_(id(p) in first if phase == "pretrain" else id(p) not in frozen)
        learned: Sequence[nn.Parameter] = [p for p in self._all().parameters() if p.requires_grad]
        return torch.optim.SGD(
            learned,
            lr=training.lr,
            momentum=training.momentum,
            nesterov=training.nesterov,
            weight_decay=training.weight_decay,
            fused=True,
        )

    def set_modes(self, phase: Phase) -> None:
        """Train mode for what learns; in a first phase and for what is frozen, eval mode."""
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
        """What stays as the first phase left it: what that trained beside the student."""
        students = {id(p) for p in self.student.parameters()}
        for module in self.first:
            if not any(id(p) in students for p in module.parameters()):
                yield module
