"""Check convolutions against float64 on this processor, under several limits of its instructions.

The shapes are every convolution of kdbench's networks and of its methods' adapters, and a grid of
small ones: 1x1, 3x3 and others, strides 1 and 2, grouped, depthwise, transposed, 1 to 33 channels.
Each case compares the output and the three gradients with float64. It runs in a separate process
under glibc's malloc check, so a write past a buffer ends the case, not the survey.

A convolution that ``kdbench.models.pointwise`` replaces is run both ways: "plain" as PyTorch has
it, "safe" as kdbench runs it. A JSON line for each limit, number of threads, precision and kind of
shape gives the cases, crashes and wrong results, with the shapes that failed. The exit code is 1 if
a case fails that kdbench can meet, that is, any but a "plain" one.

python -m benchmarks.convolutions [--limits NAME ...] [--threads N ...] [--kinds NAME ...]
"""

import argparse
import copy
import ctypes
import gc
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.shapes import Shape, ours, small
from benchmarks.subjects import machine
from kdbench.models.pointwise import StridedPointwise, replace_strided_pointwise

LIMITS: dict[str, dict[str, str]] = {
    "none": {},
    "avx512_core": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "avx2_vnni": {"ONEDNN_MAX_CPU_ISA": "AVX2_VNNI", "ATEN_CPU_CAPABILITY": "avx2"},
    "avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    "sse41": {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"},
}
"""Name -> environment of a process that may use no better instructions. A limit above the
processor's own instructions has no effect."""
CHECKED = {
    "LD_PRELOAD": "libc_malloc_debug.so.0",
    "GLIBC_TUNABLES": "glibc.malloc.check=3",
    "MALLOC_PERTURB_": "165",
    "OMP_WAIT_POLICY": "passive",
}
"""Environment of a process whose heap is checked; waiting threads do not occupy a core."""
PRECISIONS = ("fp32", "bf16")
SECONDS = 30
"""A case that takes longer counts as hanging."""


@dataclass(frozen=True)
class Case:
    """A shape, and the way to run it."""

    shape: Shape
    precision: str
    channels_last: bool
    threads: int
    safe: bool

    @property
    def bound(self) -> float:
        """Largest allowed error, relative to the same convolution of absolute values.

        In bf16, whose unit roundoff is 2^-9, PyTorch's own kernels (used without AVX-512) round a
        product and a sum for each tap of the kernel, and in the gradient of the weight for each
        image. In fp32 the sums are long; in practice their errors average out.
        """
        height, width = self.shape.kernel
        terms = max(height * width, self.shape.batch)
        return 1e-5 if self.precision == "fp32" else 2 * terms * 2.0**-9


# --- one case -----------------------------------------------------------------------------------


def errors(case: Case) -> dict[str, float]:
    """Return the errors of the output and of each gradient, relative to the effect of rounding.

    Each is the largest quotient of an entry's error and the same sum over absolute values.
    """
    torch.manual_seed(0)
    shape = case.shape
    layer = shape.layer()
    x = torch.randn(shape.batch, shape.inputs, *shape.size).bfloat16().float()
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(p.bfloat16())
    exact_layer = copy.deepcopy(layer).double()
    with torch.no_grad():
        dy = torch.randn_like(exact_layer(x.double())).bfloat16()
    exact = gradients(exact_layer, x.double(), dy.double())
    with torch.no_grad():
        for p in exact_layer.parameters():
            p.abs_()
    bounds = gradients(exact_layer, x.double().abs(), dy.double().abs())

    order = torch.channels_last if case.channels_last else torch.contiguous_format
    net = nn.Sequential(layer).to(memory_format=order)
    if case.safe:
        replace_strided_pointwise(net)
    with torch.autocast("cpu", torch.bfloat16, enabled=case.precision == "bf16"):
        got = gradients(net, x.to(memory_format=order), dy.to(memory_format=order))
    names = ("output", "gradient of the input", "gradient of the weight", "gradient of the bias")
    return {
        name: float(((a.double() - b).abs() / c.clamp(min=1e-30)).nan_to_num(1e30).max())
        for name, a, b, c in zip(names, got, exact, bounds, strict=False)
    }


def gradients(layer: nn.Module, x: Tensor, dy: Tensor) -> list[Tensor]:
    """Return the output for ``x`` and ``(output * dy).sum()``'s gradients: input, weight, bias."""
    layer.zero_grad()
    leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
    out = layer(leaf)
    out.backward(dy.to(out.dtype))
    reached = [leaf.grad, *(p.grad for p in layer.parameters())]
    return [out.detach(), *(g for g in reached if g is not None)]


def outcome(case: Case) -> str:
    """Run a case in a separate process and return what failed; "" if it is right."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS)
        torch.set_num_threads(case.threads)
        try:
            worst = max(errors(case).items(), key=lambda item: item[1])
            wrong = worst[1] > case.bound
            text = f"wrong {worst[0]}: {worst[1]:.1g}" if wrong else ""
        except RuntimeError as error:
            text = f"RuntimeError: {error}"
        os.write(writer, (text or "right").encode()[:4000])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return f"crash: {signal.Signals(os.WTERMSIG(status)).name}"
    return "" if answer == "right" else answer or f"exit code {os.waitstatus_to_exitcode(status)}"


# --- all cases ----------------------------------------------------------------------------------


def cases(shapes: Iterable[Shape], threads: Iterable[int]) -> list[Case]:
    """Return each shape in each way; shapes that kdbench replaces both plain and safe."""
    result = []
    for shape, precision, last, n in product(shapes, PRECISIONS, (True, False), threads):
        result.append(Case(shape, precision, last, n, safe=False))
        if replaced(shape):
            result.append(Case(shape, precision, last, n, safe=True))
    return result


@cache
def replaced(shape: Shape) -> bool:
    """Check whether kdbench replaces the layer."""
    with torch.device("meta"):
        net = replace_strided_pointwise(nn.Sequential(shape.layer()))
    return isinstance(net[0], StridedPointwise)


def run(limit: str, todo: Sequence[Case], workers: int = 1) -> list[tuple[Case, str]]:
    """Run cases under a limit, and return each with its outcome."""
    environment = os.environ | LIMITS[limit] | CHECKED
    command = [sys.executable, "-m", "benchmarks.convolutions", "--worker"]

    def share(part: int) -> list[tuple[Case, str]]:
        mine = todo[part::workers]
        done = subprocess.run(
            command,
            input=pickle.dumps(mine),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # glibc's crash messages
            env=environment,
            cwd=Path(__file__).parent.parent,
            check=True,
        )
        return list(zip(mine, map(json.loads, done.stdout.splitlines()), strict=True))

    with ThreadPoolExecutor(workers) as pool:
        return [result for part in pool.map(share, range(workers)) for result in part]


def worker() -> None:
    """Read cases from stdin; write a line for each outcome."""
    torch.set_num_threads(1)  # a process that has threads cannot fork
    torch.ones(1, requires_grad=True).mul(1).backward(torch.ones(1))  # imports many modules
    gc.freeze()  # forks then copy less
    for case in pickle.loads(sys.stdin.buffer.read()):
        print(json.dumps(outcome(case)), flush=True)


def summary(limit: str, done: Iterable[tuple[Case, str]]) -> Iterator[dict[str, Any]]:
    """Yield a line for each way to run each kind of shape."""
    groups: dict[tuple[Any, ...], list[tuple[Case, str]]] = defaultdict(list)
    for case, failure in done:
        how = ("safe" if case.safe else "plain") if replaced(case.shape) else "as it is"
        groups[case.shape.kind, how, case.precision, case.threads].append((case, failure))
    for (kind, how, precision, threads), group in sorted(groups.items()):
        bad = [(case, failure) for case, failure in group if failure]
        yield {
            "limit": limit,
            "kind": kind,
            "how": how,
            "precision": precision,
            "threads": threads,
            "cases": len(group),
            "crashed": sum(failure.startswith(("crash", "RuntimeError")) for _, failure in bad),
            "wrong": sum(failure.startswith("wrong") for _, failure in bad),
            "failed": [f"{describe(case)}: {failure}" for case, failure in bad],
        }


def describe(case: Case) -> str:
    """Describe a case in a few words."""
    shape = case.shape
    size = "x".join(map(str, shape.size))
    words = [f"{shape.inputs} -> {shape.outputs}, {size}, batch {shape.batch}"]
    words += ["transposed"] * shape.transposed + [f"kernel {shape.kernel}, stride {shape.stride}"]
    words += [f"padding {shape.padding}"] * any(shape.padding)
    words += [f"groups {shape.groups}"] * (shape.groups > 1)
    return ", ".join([*words, "channels_last" if case.channels_last else "contiguous"])


def malloc_check() -> bool:
    """Check whether this system has glibc's malloc check; without it, damage may go unnoticed."""
    try:
        ctypes.CDLL(CHECKED["LD_PRELOAD"])
    except OSError:
        return False
    return True


def main() -> None:
    """Print a line per group; exit with 1 if something fails that kdbench can meet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limits", nargs="+", choices=LIMITS, default=list(LIMITS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--kinds", nargs="+", help="Kinds of shapes (default: all).")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker()
        return
    shapes = [s for s in dict.fromkeys([*small(), *ours()]) if s.kind in (args.kinds or [s.kind])]
    todo = cases(shapes, args.threads)
    failed = False
    for limit in args.limits:
        began = time.monotonic()
        for line in summary(limit, run(limit, todo, args.workers)):
            failed = failed or bool(line["failed"] and line["how"] != "plain")
            print(json.dumps(line), flush=True)
        last = {"limit": limit, "seconds": time.monotonic() - began, "malloc_check": malloc_check()}
        print(json.dumps({**last, **machine()}), flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
