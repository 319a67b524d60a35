"""Toy networks and a batch, to run a method on in checks and tests."""

import copy
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.method import Batch, Features, Group, Incompatible, Method, Setup
from kdbench.models import upper_part
from kdbench.models.network import Lower, Network, norm_in
from kdbench.models.network_parts import frozen_norms, live_head
from kdbench.models.peers import Peers, networks
from kdbench.models.pointwise import replace_strided_pointwise
from kdbench.registry.conduct import loss_fault
from kdbench.registry.description import Description
from kdbench.registry.shared_tensors import SharedTensors, of_setup

CLASSES, SAMPLES, SIZE = 5, 40, 8


class Failed(Exception):
    """A check failed; the message says what is wrong and what to do."""


class Toy(Network):
    """A small convolutional network that returns ``Features``.

    Args:
        channels: width of each stage.
        strides: stride of each stage; by default all but the first halve the resolution.
        num_classes: K.
        in_channels: channels of the images.
    """

    head_name = "fc"

    def __init__(
        self,
        channels: Sequence[int] = (4, 6, 8),
        strides: Sequence[int] = (),
        num_classes: int = CLASSES,
        in_channels: int = 3,
    ) -> None:
        super().__init__(in_channels)
        strides = strides or [1, *[2] * (len(channels) - 1)]
        before = [channels[0], *channels[:-1]]
        self.first = convolution(in_channels, channels[0], 1)
        self.blocks = nn.ModuleList(map(convolution, before, channels, strides))
        self.parts = (("first",), *((f"blocks.{i}",) for i in range(len(channels))))
        self.fc = nn.Linear(channels[-1], num_classes)

    def begin(self, images: Tensor) -> Lower:
        return Lower(self.first(images).relu())

    def stage(self, lower: Lower) -> Lower:
        before = self.blocks.get_submodule(str(len(lower.stages)))(lower.last)
        return lower.then(before.relu(), before)

    def norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        """Return the batch norm that makes each of the ``preacts``."""
        return tuple(norm_in(block, "1") for block in self.blocks)


def convolution(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Build a 3x3 convolution with batch norm."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs)
    )


def toy_group(first: Toy, group: Group | None) -> Toy | Peers:
    """Return a network, or with a group it and others of its architecture."""
    if group is None:
        return first
    others = [copy.deepcopy(first) for _ in range(1, group.size)]
    for module in nn.ModuleList(others).modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.reset_parameters()
    return Peers([first, *others], group)


@dataclass(frozen=True)
class ToySetup:
    """A pair of toy networks, their features on a batch, and the method built for them.

    Attributes:
        student: a toy network, or the group that the method brings.
        given: what the method was built from, as it was before.
    """

    method: Method
    student: Toy | Peers
    s: Features
    t: Features
    batch: Batch
    setup: Setup
    given: SharedTensors

    def loss(self) -> Tensor:
        """Return the method's loss term, checked by ``scalar``."""
        return scalar("loss", self.method.loss(self.s, self.t, self.batch))

    def pretrain_loss(self) -> Tensor:
        """Return the loss of the pretraining phase, checked by ``scalar``."""
        return scalar("pretrain_loss", self.method.pretrain_loss(self.s, self.t, self.batch))

    def losses(self) -> dict[str, Tensor]:
        """Return every loss of the method, by name."""
        losses = {"loss": self.loss()}
        if self.method.pretrain(networks(self.student)[0]):
            losses["pretrain_loss"] = self.pretrain_loss()
        return losses


@dataclass(frozen=True)
class MethodUnderTest:
    """The method under test: its class and its hyper-parameters."""

    description: Description
    cls: type[Method]
    hyper: dict[str, Any]

    def toy_setup(
        self,
        batch_size: int = 6,
        student: Toy | None = None,
        teacher: Toy | None = None,
        *,
        change: Callable[[Tensor], Tensor] = torch.clone,
        seed: int = 0,
    ) -> ToySetup:
        """Build the method for a pair, by default for the first of two easy pairs that it accepts.

        Args:
            batch_size: B.
            student: network; default: a toy network.
            teacher: network; default: a toy network.
            change: function applied to every tensor of both networks' features.
            seed: seed of the method's own parameters.
        """
        torch.manual_seed(1)
        images = torch.randn(batch_size, 3, SIZE, SIZE)
        pairs = [(student or Toy(), teacher or Toy((5, 7, 10)))]
        if student is None and teacher is None:
            pairs.append((Toy(), Toy()))
        group = self.cls.group(**self.description.hyper | self.hyper)
        for number, (first, large) in enumerate(pairs, start=1):
            small = toy_group(first, group)
            with torch.no_grad():
                s, t = small(images).map(change), large.eval()(images).map(change)
            labels = torch.arange(SAMPLES) % CLASSES
            index = torch.randperm(SAMPLES)[:batch_size]
            setup = Setup(
                student=s,
                teacher=t,
                train_labels=labels,
                batch_size=batch_size,
                num_classes=CLASSES,
                teacher_head=large.head.requires_grad_(False),
                student_head=live_head(first),
                teacher_norms=frozen_norms(large),
                teacher_from=upper_part.of_frozen(large),
                student_from=upper_part.of_live(first),
                new_student=partial(copy.deepcopy, first),
            )
            given = of_setup(setup)
            torch.manual_seed(seed)
            try:
                method = replace_strided_pointwise(self.cls(setup, **self.hyper))
            except Incompatible:
                if number == len(pairs):
                    raise
                continue
            if type(method).prepare is not Method.prepare:
                with torch.no_grad():
                    method.prepare((t, labels[index]) for _ in range(SAMPLES // batch_size))
            views = strong(images, method.views - 1)
            with torch.no_grad():
                s = replace(s, views=tuple(small(x).map(change) for x in views))
                t = replace(t, views=tuple(large(x).map(change) for x in views))
            batch = Batch(images, labels[index], index, views=views)
            leaves = s.map(lambda x: x.detach().clone().requires_grad_())
            return ToySetup(method, small, leaves, t, batch, setup, given)
        raise AssertionError("unreachable")


def strong(images: Tensor, number: int) -> tuple[Tensor, ...]:
    """Return noise in place of strong views; draws no number from torch's global generator."""
    noise = torch.Generator().manual_seed(1)
    return tuple(torch.randn(images.shape, generator=noise) for _ in range(number))


def scalar(what: str, value: Any) -> Tensor:
    """Return ``value`` if it is a finite floating-point scalar, else raise ``Failed``."""
    fault = loss_fault(what, value, gradient=False)
    if fault:
        raise Failed(fault)
    assert isinstance(value, Tensor)
    if not value.isfinite():
        raise Failed(f"{what} is {value.item()}, expected a finite number")
    return value


def finite_gradients(toy: ToySetup) -> None:
    """Check that the gradients of every loss to features and parameters are finite."""
    for what, loss in toy.losses().items():
        if not loss.requires_grad:
            continue
        loss.backward()
        for name, x in toy.s.named():
            if x.grad is not None and not x.grad.isfinite().all():
                raise Failed(f"the gradient of {what} to the student's {name} is not finite")
        for name, parameter in toy.method.named_parameters():
            if parameter.grad is not None and not parameter.grad.isfinite().all():
                raise Failed(f"the gradient of {what} to the parameter {name} is not finite")


def one_line(error: Exception, subject: MethodUnderTest) -> str:
    """Describe an exception in one line, with the last line of the method's file it passed."""
    places = [
        f" ({frame.filename.rpartition('/')[2]}:{frame.lineno})"
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename) == subject.description.path
    ]
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}{places[-1] if places else ''}"
