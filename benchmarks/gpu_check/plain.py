"""The plain loop on the card as peers run it: one method at a time, PIL in eight processes, TF32.

See ``benchmarks/plain``. The network that it trains is the same; everything else is as such scripts
have it: ``cudnn.benchmark``, pinned memory, the default memory format, an unfolded teacher, values
read in every step.
"""

import os
import statistics
import time
from typing import Any

import torch

from benchmarks.gpu_check import models
from benchmarks.gpu_check.check import Check
from benchmarks.plain.loop import K, Pictures
from benchmarks.plain.loop import Run as Plain
from benchmarks.subjects import noise
from kdbench.data.dataset import LoadedData
from kdbench.models import zoo
from kdbench.training import device as devices

WORKERS = 8


def run(check: Check) -> None:
    """Time each method's plain steps, and compare their sum with the cohort's step."""
    sizes = check.sizes
    data = noise(sizes.images, sizes.classes)
    pictures = {negatives: Pictures(data, negatives=negatives) for negatives in (0, K)}
    teacher = network(sizes.pair[0], data)
    ms: dict[str, float] = {}
    as_peers_set_it(check)
    try:
        for name in sizes.column:
            if not check.has_time(name):
                break
            ms[name], waited = timed(check, name, data, teacher, pictures)
            check.line(
                what="plain step",
                method=name,
                ms=round(ms[name], 3),
                loader_ms=round(waited, 3),
                workers=workers(check),
                n=sizes.plain_steps - sizes.plain_warm,
            )
    finally:
        devices.prepare(check.device)
    check.outcome.headline = compared(check, ms)


def as_peers_set_it(check: Check) -> None:
    """Set torch as such scripts do: algorithms chosen by timing, TF32, nothing deterministic."""
    if check.cuda:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = False
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = True  # torch's default


def network(name: str, data: LoadedData) -> Any:
    """Return an untrained network."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return zoo.create(name, num_classes=data.num_classes, in_channels=data.channels)


def workers(check: Check) -> int:
    """Return the number of the loader's processes; a small check has one."""
    return 1 if check.small else min(WORKERS, len(os.sched_getaffinity(0)))


def timed(
    check: Check, name: str, data: LoadedData, teacher: Any, pictures: dict[int, Pictures]
) -> tuple[float, float]:
    """Return the median milliseconds of a step, and of waiting for the loader in it."""
    sizes = check.sizes
    loop = Plain(
        name,
        network(sizes.pair[1], data),
        teacher,
        data,
        batch=sizes.batch,
        rate=0.01,
        workers=workers(check),
        device=check.device,
        pictures=pictures[K if name == "crd" else 0],
    )
    steps, waits = [], []
    for i in range(sizes.plain_steps):
        began, waited = time.perf_counter(), loop.waited
        loop.step()  # reads values, so it ends with the device's work
        if i >= sizes.plain_warm:
            steps.append(1e3 * (time.perf_counter() - began))
            waits.append(1e3 * (loop.waited - waited))
    loop.batches = iter(())  # ends the loader's processes
    return statistics.median(steps), statistics.median(waits)


def compared(check: Check, ms: dict[str, float]) -> str:
    """Write the ratios to the cohort's steps that the check has measured; return them in words."""
    total = sum(ms.values())
    words = [f"{len(ms)} methods {total:.1f} ms"]
    complete = len(ms) == len(check.sizes.column)
    cohorts: dict[str, float] = check.values.get("cohort_ms", {})
    for precision, cohort in cohorts.items():
        if not complete:
            break
        ratio = total / cohort
        row: dict[str, Any] = {"ratio": round(ratio, 3)}
        if precision in models.TARGET_RATIO and not check.small:
            row["target"] = models.TARGET_RATIO[precision]
            row["reached"] = ratio >= models.TARGET_RATIO[precision]
        check.line(
            what="plain loop / cohort",
            precision=precision,
            plain_ms=round(total, 2),
            cohort_ms=round(cohort, 3),
            **row,
        )
        words.append(f"{ratio:.2f} times {precision}'s cohort")
    return ", ".join(words)
