"""What networks and methods cost, counted by running them on shapes alone: nothing is computed.

They see torch's fake tensors, so that a pair takes fractions of a second; a method that asks for
values is run on a small batch of zeros instead.
"""

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from kdbench.cost.peak_memory import Peak
from kdbench.grid.run import Term
from kdbench.method import Batch, Features, Incompatible, Method, Setup
from kdbench.models import size as cost
from kdbench.models import zoo
from kdbench.models.pointwise import replace_strided_pointwise
from kdbench.registry import lookup
from kdbench.registry.lookup import built_in_path

log = logging.getLogger(__name__)

SMALL = 4
"""Batch of a method that cannot be run on shapes alone."""


@dataclass(frozen=True)
class Shape:
    """What of a data set decides the cost of training on it."""

    channels: int
    size: int
    classes: int
    train: int
    test: int


@dataclass(frozen=True)
class NetworkCost:
    """A network: MACs and bytes of one image, and its parameters.

    Attributes:
        kept: bytes that a forward in training leaves for the backward pass, features among them.
        features: bytes of its ``Features``.
        widest: bytes of the two largest layers' outputs, which a forward alone holds at once.
    """

    macs: int = 0
    parameters: int = 0
    kept: float = 0.0
    features: float = 0.0
    widest: float = 0.0

    @property
    def looked(self) -> float:
        """Bytes that a forward without gradients holds at most."""
        return self.features + self.widest

    def in_precision(self, half: bool) -> "NetworkCost":
        """The same network where ``half``: with every layer's output in bf16, not in fp32."""
        if not half:
            return self
        kept, features, widest = self.kept / 2, self.features / 2, self.widest / 2
        return replace(self, kept=kept, features=features, widest=widest)

    def step(self, batch_size: int) -> float:
        """Bytes that a training step needs at most, weights apart: activations, gradients."""
        return batch_size * (self.kept + self.widest) + 4 * self.parameters


@cache
def network_cost(name: str, of: Shape) -> NetworkCost:
    """What a network costs on images of this shape."""
    return _ran(name, of)[0]


@cache
def _ran(name: str, of: Shape) -> tuple[NetworkCost, Features]:
    """A network's cost, and its features of two images on the meta device."""
    network = _network(name, of)
    sizes: list[int] = []
    macs: list[int] = []
    kept: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        kept.append(x)
        return x

    def count(layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        sizes.append(out.numel() * 4)
        if isinstance(layer, cost.COUNTED):
            macs.append(cost.layer_macs(layer, args[0], out))

    leaves = [module for module in network.modules() if not list(module.children())]
    hooks = [module.register_forward_hook(count) for module in leaves]
    images = torch.empty(2, of.channels, of.size, of.size, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        features: Features = network(images)
    for hook in hooks:
        hook.remove()
    shown = [features.stem, *features.stages, *features.preacts, features.embedding]
    counted = NetworkCost(
        macs=sum(macs) // 2,
        parameters=cost.params(network),
        kept=_pieces(*kept, *shown, without=network) / 2,
        features=_pieces(*shown, without=network) / 2,
        widest=sum(sorted(sizes)[-2:]) / 2,
    )
    return counted, features.detached()


def _pieces(*tensors: Tensor, without: nn.Module) -> int:
    """Bytes of memory under tensors, each piece once, and none that a module holds anyway."""
    own = {_piece(x) for x in (*without.parameters(), *without.buffers())}
    sizes = {_piece(x): x.numel() * x.element_size() for x in tensors}
    return sum(size for piece, size in sizes.items() if piece not in own)


def _piece(x: Tensor) -> int:
    """A number of the memory under a tensor, even where there is none."""
    return x.untyped_storage()._cdata


@cache
def _network(name: str, of: Shape) -> nn.Module:
    """A network without values."""
    with torch.device("meta"):
        return zoo.create(name, num_classes=of.classes, in_channels=of.channels).eval()


@dataclass(frozen=True)
class TermsCost:
    """What a run's methods add.

    Attributes:
        macs: an image. parameters: that they train. kept: bytes that a step needs for them at most.
        remembered: bytes of buffers, such as memory banks.
        pretrains: there is a phase before training. phase_kept: bytes that a step of it needs.
        incompatible: why they cannot work here, or "".
    """

    macs: float = 0.0
    parameters: int = 0
    kept: float = 0.0
    remembered: int = 0
    pretrains: bool = False
    phase_kept: float = 0.0
    incompatible: str = ""

    def __add__(self, other: "TermsCost") -> "TermsCost":
        return TermsCost(
            macs=self.macs + other.macs,
            parameters=self.parameters + other.parameters,
            kept=self.kept + other.kept,
            remembered=self.remembered + other.remembered,
            pretrains=self.pretrains or other.pretrains,
            phase_kept=self.phase_kept + other.phase_kept,
            incompatible=self.incompatible or other.incompatible,
        )

    def scaled(self, macs: float, parameters: float, kept: float) -> "TermsCost":
        """As many times more of each."""
        return replace(
            self,
            macs=self.macs * macs,
            parameters=round(self.parameters * parameters),
            kept=self.kept * kept,
            phase_kept=self.phase_kept * kept,
        )


def adapter_cost(student: str, teacher: str | None, of: Shape) -> tuple[float, float, float]:
    """MACs, parameters and bytes that 1x1 adapters from every stage to every stage would need.

    What methods need grows with this from pair to pair, roughly.
    """
    s, t = (_ran(name, of)[1].stages for name in (student, teacher or student))
    macs = parameters = kept = 0
    for a in s:
        for b in t:
            width = a.shape[1] * b.shape[1]
            pixels = min(a.shape[2], b.shape[2]) ** 2
            macs, parameters = macs + width * pixels, parameters + width
            kept += (a.shape[1] + b.shape[1]) * pixels
    return macs, parameters, kept


def convolutions(student: str, teacher: str | None, of: Shape) -> int:
    """Parameters of a 1x1 and a 3x3 convolution from every stage to every stage's width."""
    s, t = (_ran(name, of)[1].stages for name in (student, teacher or student))
    return sum(b.shape[1] * (a.shape[1] + 9 * b.shape[1]) for a in s for b in t)


def term_cost(
    student: str, teacher: str | None, of: Shape, batch_size: int, term: Term, half: bool = False
) -> TermsCost:
    """What one method adds on a pair, on images of this shape; ``half``: in bf16."""
    method = partial(lookup.load(built_in_path(term.where)), **term.hyper)
    for name in (student, teacher or student):
        _ran(name, of)  # before there are fake tensors
    # Where there is no GPU they pretend one, for which the first backward pass of a process would
    # start a thread; and a process with such threads cannot fork and train.
    torch.zeros((), requires_grad=True).backward()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), warnings.catch_warnings(action="ignore"):
            return _count(method, student, teacher, of, batch_size, bool(term.beta), half)
    except Incompatible as reason:
        return TermsCost(incompatible=str(reason))
    except Exception as on_shapes_alone:  # anything may fail that asks for a value
        log.debug("%s: run on zeros: %s", term.method, on_shapes_alone)
    b = min(batch_size, SMALL)
    try:
        small = _count(method, student, teacher, of, b, bool(term.beta), half)
    except Exception as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())
        return TermsCost(incompatible=f"{term.method} cannot be built or run: {told}")
    share = batch_size / b
    return replace(small, kept=small.kept * share, phase_kept=small.phase_kept * share)


def _count(
    method: Callable[[Setup], Method],
    student: str,
    teacher: str | None,
    of: Shape,
    b: int,
    counted: bool,
    half: bool,
) -> TermsCost:
    """Build a method for all training images and run it once on ``b`` of them."""
    dtype = torch.bfloat16 if half else torch.float32
    s = _features(student, of, b)
    t = _features(teacher, of, b) if teacher else s
    labels = torch.arange(of.train) % of.classes
    with torch.random.fork_rng(devices=()):
        head = nn.Linear(t.embedding.shape[1], of.classes).requires_grad_(False)
        two_s, two_t = (f.map(lambda x: x[:2]) for f in (s, t))
        setup = Setup(two_s, two_t, labels, b, of.classes, head if teacher else None)
        built = replace_strided_pointwise(method(setup))
        pretrains = bool(built.pretrain(_network(student, of)))
        index = torch.arange(b) % of.train
        images = torch.zeros(b, of.channels, of.size, of.size)
        batch = Batch(images, labels[index], index)
        leaves = s.map(lambda x: x.to(dtype).requires_grad_())
        t = t.map(lambda x: x.to(dtype))
        flops, kept, phase_kept = 0.0, 0, 0
        with torch.autocast("cpu", dtype, enabled=half):
            if counted:
                flops, kept = _measured(partial(built.loss, leaves, t, batch), leaves, built)
            if pretrains:
                first = partial(built.pretrain_loss, leaves, t, batch)
                _, phase_kept = _measured(first, leaves, built)
    parameters = sum(p.numel() for p in built.parameters() if p.requires_grad)
    remembered = sum(x.numel() * x.element_size() for x in built.buffers())
    return TermsCost(flops / b / 2, parameters, kept, remembered, pretrains, phase_kept)


def _measured(loss: Callable[[], Tensor], s: Features, method: Method) -> tuple[float, int]:
    """Operations of a loss's forward, and what forward and backward hold at most, in bytes."""
    to = [s.stem, *s.stages, *s.preacts, s.embedding, s.logits]
    to += [p for p in method.parameters() if p.requires_grad]
    with Peak() as peak:
        with FlopCounterMode(display=False) as counter:
            value = loss()
        if value.requires_grad:
            held = torch.autograd.grad(value, to, allow_unused=True)
            del held
    return counter.get_total_flops(), peak.most


def _features(name: str, of: Shape, batch: int) -> Features:
    """Features of the right shapes; a term's cost does not depend on their values."""
    return _ran(name, of)[1].map(lambda x: torch.zeros(batch, *x.shape[1:]))
