"""Cost of networks and methods, counted by running them on shapes alone.

They run on torch's fake tensors, which takes fractions of a second per pair. A method that needs
values runs on a small batch of zeros instead.
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

from kdbench.cost.peak_memory import PeakMemory
from kdbench.cost.setup_of_shapes import setup_of_shapes
from kdbench.cost.terms_cost import TermsCost as TermsCost
from kdbench.grid.run import Term
from kdbench.method import Batch, Features, Incompatible, Method, Setup
from kdbench.models import size as cost
from kdbench.models import zoo
from kdbench.models.pointwise import replace_strided_pointwise
from kdbench.registry import lookup, process_state
from kdbench.registry.lookup import built_in_path

log = logging.getLogger(__name__)

SMALL = 4
"""Batch size for a method that cannot run on shapes alone."""


@dataclass(frozen=True)
class DataShape:
    """The properties of a data set that determine the cost of training on it.

    Attributes:
        size: height and width of the images.
        train: number of training images.
        test: number of test images.
    """

    channels: int
    size: int
    classes: int
    train: int
    test: int


@dataclass(frozen=True)
class NetworkCost:
    """A network's MACs and bytes per image, and its parameters.

    Attributes:
        kept: bytes that a training forward keeps for the backward pass, features included.
        features: bytes of its ``Features``.
        widest: bytes of the two largest layers' outputs, which a forward pass holds at once.
    """

    macs: int = 0
    parameters: int = 0
    kept: float = 0.0
    features: float = 0.0
    widest: float = 0.0

    @property
    def inference(self) -> float:
        """Peak bytes of a forward pass without gradients."""
        return self.features + self.widest

    def in_precision(self, bf16: bool) -> "NetworkCost":
        """Return the cost with every layer's output in bf16 if ``bf16``, else unchanged."""
        if not bf16:
            return self
        kept, features, widest = self.kept / 2, self.features / 2, self.widest / 2
        return replace(self, kept=kept, features=features, widest=widest)

    def step(self, batch_size: int) -> float:
        """Return the peak bytes of activations and gradients in a training step."""
        return batch_size * (self.kept + self.widest) + 4 * self.parameters


@cache
def network_cost(name: str, shape: DataShape) -> NetworkCost:
    """Return a network's cost on images of this shape."""
    return _run_on_meta(name, shape)[0]


@cache
def _run_on_meta(name: str, shape: DataShape) -> tuple[NetworkCost, Features]:
    """Return a network's cost, and its features of two images on the meta device."""
    network = _network(name, shape)
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
    images = torch.empty(2, shape.channels, shape.size, shape.size, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        network_features: Features = network(images)
    for hook in hooks:
        hook.remove()
    maps = [
        network_features.stem,
        *network_features.stages,
        *network_features.preacts,
        network_features.embedding,
    ]
    counted = NetworkCost(
        macs=sum(macs) // 2,
        parameters=cost.params(network),
        kept=_storage_bytes(*kept, *maps, without=network) / 2,
        features=_storage_bytes(*maps, without=network) / 2,
        widest=sum(sorted(sizes)[-2:]) / 2,
    )
    return counted, network_features.detached()


def _storage_bytes(*tensors: Tensor, without: nn.Module) -> int:
    """Return the bytes of tensors' storages, each counted once, without the module's own."""
    owned = {_storage_id(x) for x in (*without.parameters(), *without.buffers())}
    sizes = {_storage_id(x): x.numel() * x.element_size() for x in tensors}
    return sum(size for piece, size in sizes.items() if piece not in owned)


def _storage_id(x: Tensor) -> int:
    """Return an identifier of a tensor's storage, even on the meta device."""
    return x.untyped_storage()._cdata


@cache
def _network(name: str, shape: DataShape) -> nn.Module:
    """Build a network on the meta device, in eval mode."""
    with torch.device("meta"):
        return zoo.create(name, num_classes=shape.classes, in_channels=shape.channels).eval()


def adapter_cost(student: str, teacher: str | None, shape: DataShape) -> tuple[float, float, float]:
    """Return MACs, parameters and bytes of 1x1 adapters from every stage to every stage.

    From pair to pair, the cost of methods grows roughly with these.
    """
    s, t = (_run_on_meta(name, shape)[1].stages for name in (student, teacher or student))
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
    s, t = (_run_on_meta(name, shape)[1].stages for name in (student, teacher or student))
    return sum(b.shape[1] * (a.shape[1] + 9 * b.shape[1]) for a in s for b in t)


def term_cost(
    student: str,
    teacher: str | None,
    shape: DataShape,
    batch_size: int,
    term: Term,
    bf16: bool = False,
) -> TermsCost:
    """Return the additional cost of one method on a pair, on images of this shape."""
    build = partial(lookup.load(built_in_path(term.where)), **term.hyper)
    for name in (student, teacher or student):
        _run_on_meta(name, shape)  # before there are fake tensors
    # Without a GPU, fake tensors pretend to have one. The first backward pass of the process would
    # then start a thread for it, and a process with such threads cannot fork and train.
    torch.zeros((), requires_grad=True).backward()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), warnings.catch_warnings(action="ignore"):
            return _count(build, student, teacher, shape, batch_size, bool(term.beta), bf16)
    except Incompatible as reason:
        return TermsCost(incompatible=str(reason))
    except (Exception, SystemExit) as on_shapes_alone:  # anything may fail that asks for a value
        log.debug("%s: runs on zeros: %s", term.method, on_shapes_alone)
    b = min(batch_size, SMALL)
    try:
        small = _count(build, student, teacher, shape, b, bool(term.beta), bf16)
    except (Exception, SystemExit) as error:
        message = " ".join(f"{type(error).__name__}: {error}".split())
        return TermsCost(incompatible=f"{term.method} cannot be built or run: {message}")
    share = batch_size / b
    return replace(small, kept=small.kept * share, phase_kept=small.phase_kept * share)


def _count(
    build: Callable[[Setup], Method],
    student: str,
    teacher: str | None,
    shape: DataShape,
    b: int,
    in_loss: bool,
    bf16: bool,
) -> TermsCost:
    """Build a method for all training images; run it on ``b``, with its loss if ``in_loss``."""
    dtype = torch.bfloat16 if bf16 else torch.float32
    s = _features(student, shape, b)
    t = _features(teacher, shape, b) if teacher else s
    labels = torch.arange(shape.train) % shape.classes
    # A method that changes the process fails in its own training; this process counts others.
    with process_state.kept("", silent=True), torch.random.fork_rng(devices=()):
        new = partial(zoo.create, num_classes=shape.classes, in_channels=shape.channels)
        pair = partial(new, student), partial(new, teacher) if teacher else None
        setup = setup_of_shapes(s, t, *pair, labels, b, shape.classes)
        method = replace_strided_pointwise(build(setup))
        pretrains = bool(method.pretrain(_network(student, shape)))
        index = torch.arange(b) % shape.train
        images = torch.zeros(b, shape.channels, shape.size, shape.size)
        extra = method.views - 1
        batch = Batch(images, labels[index], index, views=(images,) * extra)
        s, t = (
            replace(own, views=tuple(_features(name, shape, b) for _ in range(extra)))
            for own, name in ((s, student), (t, teacher or student))
        )
        leaves = s.map(lambda x: x.to(dtype).requires_grad_())
        t = t.map(lambda x: x.to(dtype))
        flops, kept, phase_kept = 0.0, 0, 0
        with torch.autocast("cpu", dtype, enabled=bf16):
            if in_loss:
                flops, kept = _measure(partial(method.loss, leaves, t, batch), leaves, method)
            if pretrains:
                first = partial(method.pretrain_loss, leaves, t, batch)
                _, phase_kept = _measure(first, leaves, method)
    parameters = sum(p.numel() for p in method.parameters() if p.requires_grad)
    remembered = sum(x.numel() * x.element_size() for x in method.buffers())
    counted = TermsCost(flops / b / 2, parameters, kept, remembered, pretrains, phase_kept)
    return replace(counted, views=method.views)


def _measure(loss: Callable[[], Tensor], s: Features, method: Method) -> tuple[float, int]:
    """Return the operations of a loss's forward pass, and the peak bytes of both passes."""
    inputs = [s.stem, *s.stages, *s.preacts, s.embedding, s.logits]
    inputs += [x for view in s.views for _, x in view.named()]
    inputs += [p for p in method.parameters() if p.requires_grad]
    with PeakMemory() as peak:
        with FlopCounterMode(display=False) as counter:
            value = loss()
        if value.requires_grad:
            gradients = torch.autograd.grad(value, inputs, allow_unused=True)
            del gradients
    return counter.get_total_flops(), peak.max_bytes


def _features(name: str, shape: DataShape, batch: int) -> Features:
    """Return features of the right shapes; a term's cost does not depend on their values."""
    return _run_on_meta(name, shape)[1].map(lambda x: torch.zeros(batch, *x.shape[1:]))
