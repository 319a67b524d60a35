"""Shapes of convolutions: those of kdbench's networks and adapters, and a grid of small ones."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from torch import nn

from kdbench.cost import counting
from kdbench.grid.run import Term
from kdbench.models import zoo
from kdbench.registry import lookup


@dataclass(frozen=True)
class Shape:
    """A convolution and its input [batch, inputs, *size]."""

    kind: str
    inputs: int
    outputs: int
    kernel: tuple[int, int]
    size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    groups: int = 1
    batch: int = 16
    bias: bool = False
    transposed: bool = False

    def layer(self) -> nn.Conv2d | nn.ConvTranspose2d:
        """Build the layer, with weights drawn from torch's global generator."""
        kind = nn.ConvTranspose2d if self.transposed else nn.Conv2d
        return kind(
            self.inputs,
            self.outputs,
            self.kernel,
            stride=self.stride,
            padding=self.padding,
            groups=self.groups,
            bias=self.bias,
        )


def square(x: int) -> tuple[int, int]:
    """Return the same value for both directions."""
    return x, x


def small() -> Iterator[Shape]:
    """Yield a grid of small convolutions."""
    thin = range(1, 17)
    few = (1, 3, 4, 7, 8, 12, 16)
    for c, c_out, stride, size in product((*thin, 17, 24, 31, 32, 33), (3, 16), (1, 2), (8, 32)):
        yield Shape("1x1", c, c_out, (1, 1), square(size), square(stride))
    for c, size in product((1, 3, 4, 7, 8, 12, 15), (64, 224)):
        batch = 16 if size == 64 else 4
        yield Shape("1x1", c, 2 * c, (1, 1), square(size), (2, 2), batch=batch)
        yield Shape("3x3", c, 2 * c, (3, 3), square(size), (2, 2), (1, 1), batch=4)
    for c, strides in product((3, 7, 8), ((1, 2), (2, 1), (3, 3))):
        yield Shape("1x1", c, 6, (1, 1), (17, 16), strides)
    for c, stride in product((3, 7), (1, 2)):
        yield Shape("1x1 padded", c, 6, (1, 1), (16, 16), square(stride), (1, 1))
    for c, c_out, stride in product(thin, (3, 16), (1, 2)):
        yield Shape("3x3", c, c_out, (3, 3), (8, 8), square(stride), (1, 1))
    for c, stride in product(few, (1, 2)):
        yield Shape("3x3", c, 6, (3, 3), (32, 32), square(stride), (1, 1), bias=True)
    for c, (kernel, stride) in product(few, ((2, 2), (4, 4), (5, 1), (7, 2), (7, 4))):
        padding = square((kernel - 1) // 2 if kernel % 2 else 0)
        yield Shape("others", c, 8, square(kernel), (32, 32), square(stride), padding)
    for c, kernel, stride, multiple in product(thin, (1, 3), (1, 2), (1, 2)):
        yield same("depthwise", c, c * multiple, kernel, stride, groups=c)
    for groups, c, kernel, stride in product((2, 3), (1, 2, 4, 5, 8), (1, 3), (1, 2)):
        yield same("grouped", groups * c, groups * 4, kernel, stride, groups=groups)
    for c, c_out, kernel, stride in product(few, (3, 8), (1, 3, 4), (1, 2)):
        yield same("transposed", c, c_out, kernel, stride, transposed=True)


def same(kind: str, c: int, c_out: int, kernel: int, stride: int, **others: Any) -> Shape:
    """Return a shape at 8x8 pixels whose padding keeps the size at stride 1."""
    padding = square((kernel - 1) // 2)
    return Shape(kind, c, c_out, square(kernel), (8, 8), square(stride), padding, **others)


DEMO = ("r8w3", "r8w16", "v5w4", "v5w16")
PAIRS = (("r8w16", "r8w3"), ("r8w16", "v5w4"), ("resnet32x4", "ShuffleV1"), ("vgg13", "resnet8x4"))


def ours() -> Iterator[Shape]:
    """Yield every convolution of kdbench's networks and of its methods' adapters, once."""
    seen: dict[Shape, None] = {}

    def see(layer: nn.Module, args: Any, out: Any) -> None:
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            kernel, stride = layer.kernel_size, layer.stride
            transposed, bias = isinstance(layer, nn.ConvTranspose2d), layer.bias is not None
            inputs, size = layer.in_channels, tuple(args[0].shape[2:])
            outputs, groups = layer.out_channels, layer.groups
            shape = Shape(
                kind, inputs, outputs, kernel, size, stride, layer.padding,  # type: ignore[arg-type]
                groups, 4, bias, transposed,
            )  # fmt: skip
            seen.setdefault(shape)

    cifar = counting.DataShape(channels=3, size=32, classes=100, train=1000, test=100)
    digits = counting.DataShape(channels=1, size=8, classes=10, train=1000, test=100)
    hook = nn.modules.module.register_module_forward_hook(see)
    try:
        kind = "networks"
        for name in (*zoo.names(), *DEMO):
            counting.network_cost(name, digits if name in DEMO else cifar)
        kind = "adapters"
        for (teacher, student), name in product(PAIRS, lookup.names()):
            about = lookup.describe(name)
            if name in ("crd", "kdsvd"):
                continue  # no convolutions, and slow even on meta tensors
            data = digits if teacher in DEMO else cifar
            term = Term(name, about.beta, about.hyper)
            counting.term_cost(student, teacher, data, 4, term)
    finally:
        hook.remove()
    yield from seen
