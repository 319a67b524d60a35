"""Where the time of a cohort's step goes: kinds of kernels, gaps, and the load of the card."""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity

from benchmarks.gpu_check import subjects
from benchmarks.gpu_check.check import Check
from benchmarks.gpu_check.ways import Column, Way
from kdbench.training.graphs import WARM

TINY_US = 4.0
"""Kernels shorter than this are counted as tiny, too."""
ANNOTATIONS = ("Optimizer.", "ProfilerStep", "autograd::")
"""Beginnings of names of spans that contain kernels and are none."""
KINDS = (
    ("batch norm", ("bn_", "batch_norm", "batchnorm", "bnfw", "bnbw")),
    ("convolution", ("conv", "fprop", "dgrad", "wgrad", "implicit", "cudnn", "nhwc")),
    ("product", ("gemm", "cutlass", "nvjet", "cublas", "mm_", "addmm")),
    ("optimiser", ("sgd", "multi_tensor", "foreach")),
    ("reduction", ("reduce", "softmax", "norm", "scan", "sum")),
    ("copy", ("copy", "memcpy", "memset", "cat", "fill")),
    ("elementwise", ("elementwise", "vectorized", "add", "mul", "relu", "threshold")),
)
"""Kind -> parts of kernels' names; the first kind that fits counts."""


class Kernel(NamedTuple):
    """A kernel that ran: its name, and its start and duration in microseconds."""

    name: str
    start: float
    us: float


def run(check: Check) -> None:
    """Profile a cohort's steps in each precision, and sample the card meanwhile."""
    sizes = check.sizes
    data = subjects.noise_images(check, sizes.images)
    loaded = subjects.teacher(data, sizes.pair[0], check.device)
    words = []
    for precision in ("tf32", "bf16") if check.cuda else ("fp32",):
        if not check.has_time(f"profile in {precision}"):
            break
        way = Way(precision, sizes.streams[-2] if len(sizes.streams) > 2 else 1)
        column = Column(check, sizes.column, way, sizes.pair, data, loaded, sizes.batch)
        column.run(WARM + 2)
        ms = loaded_card(check, column)
        words.append(profiled(check, column, ms))
        del column
        check.free()
    check.outcome.headline = "; ".join(words)


def loaded_card(check: Check, column: Column) -> float:
    """Run steps for about two seconds, write what NVML says meanwhile; return ms of a step."""
    seconds = 0.2 if check.small else 2.0
    with Sampler(check) as sampler:
        began, steps = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            column.run(check.sizes.round_steps)
            steps += check.sizes.round_steps
        ms = 1e3 * (time.perf_counter() - began) / steps
    if sampler.problem:
        check.skip("utilisation, power and clocks", sampler.problem)
    else:
        check.line(what="the card's load", n=sampler.count, **sampler.means(), **column.way.values)
    return ms


class Sampler:
    """Samples of the card's utilisation, power and clocks, taken by a thread.

    Attributes:
        problem: why there are none, or "".
        count: number of samples.
    """

    def __init__(self, check: Check) -> None:
        self.problem, self.count = "", 0
        self._sums: dict[str, float] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        if not check.cuda:
            self.problem = "a CPU has no NVML"
            return
        try:
            import pynvml

            pynvml.nvmlInit()
            uuid = str(torch.cuda.get_device_properties(check.device).uuid)
            name = uuid if uuid.startswith("GPU-") else f"GPU-{uuid}"
            self._nvml, self._handle = pynvml, pynvml.nvmlDeviceGetHandleByUUID(name)
        except Exception as error:
            self.problem = f"{type(error).__name__}: {error}"

    def __enter__(self) -> "Sampler":
        """Begin to sample."""
        if not self.problem:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """End it."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def means(self) -> dict[str, float]:
        """Return the means of all samples."""
        return {name: round(value / max(1, self.count), 1) for name, value in self._sums.items()}

    def _sample(self) -> None:
        nvml, handle = self._nvml, self._handle
        while not self._end.wait(0.05):
            try:
                used = nvml.nvmlDeviceGetUtilizationRates(handle)
                values = {
                    "utilisation": used.gpu,
                    "memory_utilisation": used.memory,
                    "watts": nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
                    "sm_mhz": nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
                    "memory_mhz": nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
                    "celsius": nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
                }
            except Exception as error:
                self.problem = f"{type(error).__name__}: {error}"
                return
            for key, value in values.items():
                self._sums[key] = self._sums.get(key, 0.0) + value
            self.count += 1


def profiled(check: Check, column: Column, ms: float) -> str:
    """Profile steps, write the shares of kinds of kernels, and return them in words."""
    steps = check.sizes.round_steps
    kind = ProfilerActivity.CUDA if check.cuda else ProfilerActivity.CPU
    with torch.profiler.profile(activities=[kind], acc_events=True) as profile:
        began = time.perf_counter()
        column.run(steps)
        wall = 1e6 * (time.perf_counter() - began)
    kernels = list(kernels_of(profile, check.cuda))
    every = sum(kernel.us for kernel in kernels)
    if not every:
        check.line(what="profile", problem="the profiler saw no kernel")
        return "no kernel seen"
    spans = busy([(kernel.start, kernel.start + kernel.us) for kernel in kernels])
    by_kind, by_name, counts = (
        defaultdict[str, float](float),
        defaultdict[str, float](float),
        Counter[str](),
    )
    tiny = [kernel for kernel in kernels if kernel.us < TINY_US]
    for kernel in kernels:
        by_kind[kind_of(kernel.name)] += kernel.us
        by_name[kernel.name[:120]] += kernel.us
        counts[kernel.name[:120]] += 1
    shares = {name: round(us / every, 4) for name, us in largest_first(by_kind)}
    row: dict[str, Any] = {
        "ms": round(ms, 3),
        "wall_ms_profiled": round(wall / steps / 1e3, 3),
        "kernels": round(len(kernels) / steps, 1),
        "kernel_ms": round(every / steps / 1e3, 3),
        "busy": round(spans / wall, 4),
        "at_once": round(every / spans, 3),
        "shares": shares,
        "tiny_kernels": round(len(tiny) / steps, 1),
        "tiny_share": round(sum(kernel.us for kernel in tiny) / every, 4),
        "n": steps,
    }
    ceiling = convolutions_ms(check, column.way.precision)
    if ceiling is not None:
        row["convolutions_ms_at_ceiling"] = round(ceiling, 3)
        row["share_of_ceiling"] = round(ceiling / ms, 4)
    check.line(what="profile", **column.way.values, **row)
    for name, us in largest_first(by_name)[:25]:
        each = {"us_a_step": round(us / steps, 2), "calls_a_step": round(counts[name] / steps, 2)}
        check.line(what="kernel", name=name, precision=column.way.precision, **each)
    first = ", ".join(f"{name} {share:.0%}" for name, share in list(shares.items())[:3])
    return f"{column.way}: busy {row['busy']:.0%}, {row['kernels']:.0f} kernels, {first}"


def kernels_of(profile: Any, cuda: bool) -> Iterable[Kernel]:
    """Yield what ran on the device; on a CPU, the operations."""
    raw: Any = getattr(profile.profiler, "kineto_results", None)
    with suppress(AttributeError):  # without torch's slow conversion of every event
        wanted = torch.autograd.DeviceType.CUDA if cuda else torch.autograd.DeviceType.CPU
        found = [
            Kernel(event.name(), event.start_ns() / 1e3, event.duration_ns() / 1e3)
            for event in raw.events()
            if event.device_type() == wanted and not event.name().startswith(ANNOTATIONS)
        ]
        return [kernel for kernel in found if kernel.us > 0]
    wanted_name = "CUDA" if cuda else "CPU"
    return [
        Kernel(event.name, event.time_range.start, event.time_range.elapsed_us())
        for event in profile.events()
        if event.device_type.name == wanted_name and event.time_range.elapsed_us() > 0
    ]


def largest_first(sums: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return names and sums, largest first."""
    return sorted(sums.items(), key=lambda item: -item[1])


def busy(spans: Iterable[tuple[float, float]]) -> float:
    """Return the length of the union of intervals."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def kind_of(name: str) -> str:
    """Return the kind of a kernel by its name."""
    lower = name.lower()
    for kind, words in KINDS:
        if any(word in lower for word in words):
            return kind
    return "other"


def convolutions_ms(check: Check, precision: str) -> float | None:
    """Return the time of all convolutions of both networks, alone, as measured before.

    The methods' own convolutions are not in it.
    """
    from benchmarks.gpu_check.ceilings import total

    if "convolutions" not in check.values:
        return None
    teacher, student = (total(check, name, precision) for name in check.sizes.pair)
    if teacher is None or student is None:
        return None
    return teacher + len(check.sizes.column) * student
