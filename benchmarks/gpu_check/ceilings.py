"""What the card reaches at best in the operations of a step: the denominators of all shares."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu_check.check import Check
from benchmarks.gpu_check.timing import median_ms
from kdbench.models import zoo
from kdbench.training import device as devices

PARTS = ("forward", "data gradient", "weight gradient")


@dataclass(frozen=True)
class Shape:
    """A convolution's shape: channels in and out, kernel, stride, groups, and size of its input."""

    channels: int
    out: int
    kernel: int
    stride: int
    padding: int
    groups: int
    size: int

    def flops(self, batch: int) -> float:
        """Return the operations of one pass."""
        size = (self.size + 2 * self.padding - self.kernel) // self.stride + 1
        return 2.0 * batch * self.out * size**2 * self.channels / self.groups * self.kernel**2


def run(check: Check) -> None:
    """Measure copying, products, kernel launches, and each convolution of both networks."""
    best = plain_ceilings(check)
    check.outcome.headline = ", ".join(f"{name} {value}" for name, value in best.items())
    teacher, student = check.sizes.pair
    shapes = {name: convolutions(name, check.sizes.classes) for name in (teacher, student)}
    times: dict[tuple[Shape, str, str], float] = {}
    check.values["convolutions"], check.values["shapes"] = times, shapes
    ways = [(p, True) for p in ("tf32", "bf16", "fp32")] + [(p, False) for p in ("tf32", "bf16")]
    for precision, deterministic in ways:
        if not check.cuda and precision == "tf32":
            check.skip("convolutions in tf32", "only GPUs have it")
            continue
        set_precision(check, precision, deterministic)
        try:
            for shape in sorted(set(shapes[teacher]) | set(shapes[student]), key=str):
                if not check.has_time(f"convolutions, {precision}"):
                    return
                parts = PARTS if shape in shapes[student] else PARTS[:1]
                for part, ms in measured(check, shape, precision, parts).items():
                    if deterministic:
                        times[shape, part, precision] = ms
                    check.line(
                        what="convolution",
                        part=part,
                        precision=precision,
                        deterministic=deterministic,
                        us=round(1e3 * ms, 2),
                        tflops=round(shape.flops(check.sizes.batch) / ms / 1e9, 2),
                        **asdict(shape),
                    )
        finally:
            devices.prepare(check.device)
    for precision in ("fp32", "tf32", "bf16"):
        sums = {name: total(check, name, precision) for name in shapes}
        if all(sums.values()):
            check.line(what="convolutions of a step", precision=precision, **sums)


def plain_ceilings(check: Check) -> dict[str, str]:
    """Measure copying, products of matrices and empty kernels."""
    device, sizes, best = check.device, check.sizes, {}
    ms = copy_ms(device, sizes.copied)
    tb = 2 * sizes.copied / ms / 1e9
    check.line(what="copy", tb_per_s=round(tb, 3), bytes=sizes.copied)
    best["copy"] = f"{tb:.2f} TB/s"
    for precision in ("bf16", "tf32", "fp32"):
        if precision == "tf32" and not check.cuda:
            check.skip("product in tf32", "only GPUs have it")
        elif check.has_time(f"product, {precision}"):
            tflops = 2 * sizes.product**3 / product_ms(device, sizes.product, precision) / 1e9
            check.line(
                what="product", precision=precision, n=sizes.product, tflops=round(tflops, 2)
            )
            best[precision] = f"{tflops:.1f} TFLOP/s"
    x = torch.zeros(1, device=device)
    us = 1e3 * median_ms(device, lambda: x.add_(1), 200 if check.cuda else 5)
    check.line(what="kernel of one number", us=round(us, 3))
    return best | {"kernel": f"{us:.2f} us"}


def copy_ms(device: torch.device, size: int) -> float:
    """Return the milliseconds of copying some bytes on the device."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return median_ms(device, lambda: target.copy_(source), 10)


def product_ms(device: torch.device, n: int, precision: str) -> float:
    """Return the milliseconds of a product of two [n, n] matrices."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = torch.randn(2, n, n, device=device).to(dtype)
    c = torch.empty_like(a)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        return median_ms(device, lambda: torch.mm(a, b, out=c), 2, rounds=3)
    finally:
        if device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = False


def convolutions(name: str, classes: int) -> Counter[Shape]:
    """Return the shapes of a network's convolutions on a 32x32 image, and how often each occurs."""
    found: Counter[Shape] = Counter()

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        shape = Shape(
            channels=module.in_channels,
            out=module.out_channels,
            kernel=module.kernel_size[0],
            stride=module.stride[0],
            padding=int(module.padding[0]),
            groups=module.groups,
            size=inputs[0].shape[-1],
        )
        found[shape] += 1

    with torch.random.fork_rng(devices=()):
        network = zoo.create(name, num_classes=classes, in_channels=3).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note)
    with torch.no_grad():
        network(torch.zeros(1, 3, 32, 32))
    return found


def set_precision(check: Check, precision: str, deterministic: bool) -> None:
    """Set torch as for training, with or without deterministic algorithms."""
    devices.prepare(check.device, precision)
    if check.cuda and not deterministic:
        torch.backends.cudnn.deterministic = False
        torch.use_deterministic_algorithms(False)


def measured(
    check: Check, shape: Shape, precision: str, parts: tuple[str, ...]
) -> dict[str, float]:
    """Return the milliseconds of each part of a convolution of a batch."""
    options: dict[str, Any] = {
        "device": check.device,
        "dtype": torch.bfloat16 if precision == "bf16" else torch.float32,
    }
    b, grouped = check.sizes.batch, shape.channels // shape.groups
    x = torch.randn(b, shape.channels, shape.size, shape.size, **options)
    w = torch.randn(shape.out, grouped, shape.kernel, shape.kernel, **options)
    x, w = (tensor.to(memory_format=torch.channels_last) for tensor in (x, w))
    sizes = ([shape.stride] * 2, [shape.padding] * 2, [1, 1])

    def forward() -> Tensor:
        return torch.conv2d(x, w, None, *sizes, shape.groups)

    y = forward()

    def backward(*mask: bool) -> Callable[[], object]:
        return lambda: torch.ops.aten.convolution_backward(
            y, x, w, None, *sizes, False, [0, 0], shape.groups, mask
        )

    actions = {
        "forward": forward,
        "data gradient": backward(True, False, False),
        "weight gradient": backward(False, True, False),
    }
    rounds = 3
    return {
        part: median_ms(check.device, actions[part], check.sizes.repeat, rounds) for part in parts
    }


def total(check: Check, name: str, precision: str) -> float | None:
    """Return the milliseconds of a network's convolutions in a step; None if one was not measured.

    The teacher only runs forward.
    """
    shapes: Counter[Shape] = check.values["shapes"][name]
    times: dict[tuple[Shape, str, str], float] = check.values["convolutions"]
    parts = PARTS if name == check.sizes.pair[1] else PARTS[:1]
    ms = 0.0
    for shape, count in shapes.items():
        for part in parts:
            if (shape, part, precision) not in times:
                return None
            ms += count * times[shape, part, precision]
    return round(ms, 4)
