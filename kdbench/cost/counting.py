"""Cost of methods, counted by running them on shapes alone.

They run on torch's fake tensors, which takes fractions of a second per pair. A method that needs
values runs on a small batch of zeros instead.
"""

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from kdbench.cost.network_cost import DataShape as DataShape
from kdbench.cost.network_cost import NetworkCost as NetworkCost
from kdbench.cost.network_cost import features_of, network_on_meta, run_on_meta, student_of
from kdbench.cost.network_cost import network_cost as network_cost
from kdbench.cost.peak_memory import PeakMemory
from kdbench.cost.setup_of_shapes import setup_of_shapes
from kdbench.cost.terms_cost import TermsCost as TermsCost
from kdbench.grid.run import Term
from kdbench.look_ahead import LookAhead, Whole
from kdbench.method import Batch, Features, Group, Incompatible, Method, Setup
from kdbench.models import zoo
from kdbench.models.pointwise import replace_strided_pointwise
from kdbench.registry import lookup, process_state
from kdbench.registry.lookup import built_in_path

log = logging.getLogger(__name__)

SMALL = 4
"""Batch size for a method that cannot run on shapes alone."""


def adapter_cost(student: str, teacher: str | None, shape: DataShape) -> tuple[float, float, float]:
    """Return MACs, parameters and bytes of 1x1 adapters from every stage to every stage.

    From pair to pair, the cost of methods grows roughly with these.
    """
    s, t = (run_on_meta(name, shape)[1].stages for name in (student, teacher or student))
    macs = parameters = kept = 0
    for a in s:
        for b in t:
            width = a.shape[1] * b.shape[1]
            pixels = min(a.shape[2], b.shape[2]) ** 2
            macs, parameters = macs + width * pixels, parameters + width
            kept += (a.shape[1] + b.shape[1]) * pixels
    return macs, parameters, kept


def convolution_parameters(student: str, teacher: str | None, shape: DataShape) -> int:
    """Count the parameters of 1x1 and 3x3 convolutions from every stage to every stage's width."""
    s, t = (run_on_meta(name, shape)[1].stages for name in (student, teacher or student))
    return sum(b.shape[1] * (a.shape[1] + 9 * b.shape[1]) for a in s for b in t)


def term_cost(
    student: str,
    teacher: str | None,
    shape: DataShape,
    batch_size: int,
    term: Term,
    bf16: bool = False,
) -> TermsCost:
    """Return the additional cost of one method on a pair, on images of this shape.

    The other networks of its group and the passes of other views are not part of it; what it does
    in ``adapt`` is.
    """
    cls = lookup.load(built_in_path(term.where))
    try:
        subject = _Subject(cls, term, student, teacher, shape, cls.group(**term.hyper), bf16)
        subject.prepare()
    except (Exception, SystemExit) as error:
        return _impossible(term, error)
    # Without a GPU, fake tensors pretend to have one. The first backward pass of the process would
    # then start a thread for it, and a process with such threads cannot fork and train.
    torch.zeros((), requires_grad=True).backward()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), warnings.catch_warnings(action="ignore"):
            return subject.count(batch_size)
    except Incompatible as reason:
        return _impossible(term, reason)
    except (Exception, SystemExit) as on_shapes_alone:  # anything may fail that asks for a value
        log.debug("%s: runs on zeros: %s", term.method, on_shapes_alone)
    b = min(batch_size, SMALL)
    try:
        small = subject.count(b)
    except (Exception, SystemExit) as error:
        return _impossible(term, error)
    share = batch_size / b
    return replace(small, kept=small.kept * share, phase_kept=small.phase_kept * share)


def _impossible(term: Term, error: BaseException) -> TermsCost:
    """Return the cost of a method that does not work."""
    if isinstance(error, Incompatible):
        return TermsCost(incompatible=str(error))
    message = " ".join(f"{type(error).__name__}: {error}".split())
    return TermsCost(incompatible=f"{term.method} cannot be built or run: {message}", fails=True)


@dataclass(frozen=True)
class _Subject:
    """A method whose cost on a pair is counted."""

    cls: type[Method]
    term: Term
    student: str
    teacher: str | None
    shape: DataShape
    group: Group | None
    bf16: bool

    def prepare(self) -> None:
        """Run the networks, before there are fake tensors."""
        run_on_meta(self.student, self.shape, self.group)
        run_on_meta(self.teacher or self.student, self.shape)

    def count(self, b: int) -> TermsCost:
        """Build the method for all training images, and run it on ``b``."""
        dtype, shape = torch.bfloat16 if self.bf16 else torch.float32, self.shape
        s = features_of(self.student, shape, b, self.group)
        t = features_of(self.teacher, shape, b) if self.teacher else s
        labels = torch.arange(shape.train) % shape.classes
        # A method that changes the process fails in its own training; this process counts others.
        with process_state.kept("", silent=True), torch.random.fork_rng(devices=()):
            method = replace_strided_pointwise(self.cls(self.setup(s, t, labels, b), **self.hyper))
            pretrains = bool(method.pretrain(network_on_meta(self.student, shape)))
            index = torch.arange(b) % shape.train
            images = torch.zeros(b, shape.channels, shape.size, shape.size)
            views = (images,) * (self.cls.views - 1)
            batch = Batch(images, labels[index], index, views=views)
            leaves = self.viewed(s).map(lambda x: x.to(dtype).requires_grad_())
            t = self.viewed(t).map(lambda x: x.to(dtype))
            flops, kept, phase_kept = 0.0, 0, 0
            with torch.autocast("cpu", dtype, enabled=self.bf16):
                if self.term.beta:
                    flops, kept = _measure(partial(method.loss, leaves, t, batch), leaves, method)
                if pretrains:
                    first = partial(method.pretrain_loss, leaves, t, batch)
                    _, phase_kept = _measure(first, leaves, method)
            if type(method).adapt is not Method.adapt:
                network = student_of(self.student, shape, self.group)
                looked, held = cost_of_looking_ahead(method, network, t.map(Tensor.float), batch)
                # What ``Operations`` multiplies by three holds the backward passes already.
                flops, kept = flops + looked / 3, max(kept, held)
        parameters = sum(p.numel() for p in method.parameters() if p.requires_grad)
        remembered = sum(x.numel() * x.element_size() for x in method.buffers())
        counted = TermsCost(flops / b / 2, parameters, kept, remembered, pretrains, phase_kept)
        return replace(counted, views=self.cls.views)

    @property
    def hyper(self) -> dict[str, Any]:
        """Hyper-parameters of the method."""
        return self.term.hyper

    def viewed(self, f: Features) -> Features:
        """Return the features of an image with those of its other views."""
        return replace(f, views=(replace(f, peers=()),) * (self.cls.views - 1))

    def setup(self, s: Features, t: Features, labels: Tensor, b: int) -> Setup:
        """Return what the method is built from."""
        shape = self.shape
        new = partial(zoo.create, num_classes=shape.classes, in_channels=shape.channels)
        pair = partial(new, self.student), partial(new, self.teacher) if self.teacher else None
        return setup_of_shapes(s, t, *pair, labels, b, shape.classes)


def _measure(loss: Callable[[], Tensor], s: Features, method: Method) -> tuple[float, int]:
    """Return the operations of a loss's forward pass, and the peak bytes of both passes."""
    inputs = [*{id(x): x for _, x in s.named()}.values()]
    inputs += [p for p in method.parameters() if p.requires_grad]
    with PeakMemory() as peak:
        with FlopCounterMode(display=False) as counter:
            value = loss()
        if value.requires_grad:
            gradients = torch.autograd.grad(value, inputs, allow_unused=True)
            del gradients
    return counter.get_total_flops(), peak.max_bytes


def cost_of_looking_ahead(
    method: Method, student: nn.Module, t: Features, batch: Batch
) -> tuple[float, int]:
    """Return the operations and the peak bytes of ``Method.adapt``, with all backward passes.

    Args:
        student: the network or networks in training.
        t: the teacher's features, or the student's if there is none.
    """
    whole = Whole(student.train(), nn.ModuleList([method]))
    meta = [p for module in method.meta() for p in module.parameters()]
    trained = [p for p in whole.parameters() if not any(p is other for other in meta)]
    optimizer = torch.optim.SGD(trained, lr=0.1, momentum=0.9, weight_decay=5e-4)
    rule = torch.optim.Adam(meta, lr=1e-4) if meta else None
    with PeakMemory() as peak, FlopCounterMode(display=False) as counter:
        method.adapt(
            LookAhead(
                type(method).__name__,
                whole,
                optimizer,
                meta,
                rule,
                t=t,
                batch=batch,
                watch=lambda loss: None,
            )
        )
    return counter.get_total_flops(), peak.max_bytes
