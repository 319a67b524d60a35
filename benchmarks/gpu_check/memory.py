"""The memory of a cohort on the card, beside kdbench's prediction."""

from typing import Any

import torch

from benchmarks.gpu_check import subjects
from benchmarks.gpu_check.check import Check
from benchmarks.gpu_check.ways import Column, Way
from kdbench.cost.cohort_memory import footprint
from kdbench.cost.estimate import Estimator
from kdbench.training.graphs import WARM

ALLOWED = 0.2
"""How far a prediction may be from what was measured, as a share of it."""


def run(check: Check) -> None:
    """Measure a cohort in the ways whose memory differs most."""
    sizes = check.sizes
    data = subjects.noise_images(check, sizes.images)
    loaded = subjects.teacher(data, sizes.pair[0], check.device)
    words = []
    streams = sizes.streams[-2] if len(sizes.streams) > 2 else sizes.streams[-1]
    for way in (Way("tf32" if check.cuda else "fp32", n) for n in (streams, 0, 1)):
        if not check.has_time(f"memory, {way}"):
            break
        predicted = prediction(check, way)
        check.free()
        if check.cuda:
            torch.cuda.reset_peak_memory_stats(check.device)
        column = Column(check, sizes.column, way, sizes.pair, data, loaded, sizes.batch)
        column.run(WARM + 2)
        if check.cuda:
            words.append(compared(check, way, predicted))
        else:
            check.skip(f"memory, {way}", "this is a card's memory")
            check.line(what="predicted memory", **way.values, predicted_gib=predicted / 2**30)
        del column
    check.outcome.headline = "; ".join(words) or "predicted only: no card"


def prediction(check: Check, way: Way) -> float:
    """Return the bytes that kdbench expects such a cohort to take."""
    sizes, estimate = check.sizes, Estimator()
    runs = (
        subjects.run(name, sizes.pair, precision=way.precision, batch=sizes.batch)
        for name in sizes.column
    )
    return footprint(map(estimate, runs), None, streams=way.streams).total


def compared(check: Check, way: Way, predicted: float) -> str:
    """Write what the card says, and compare; return it in words."""
    free, total = torch.cuda.mem_get_info(check.device)
    peak: dict[str, Any] = {
        "allocated_gib": torch.cuda.max_memory_allocated(check.device) / 2**30,
        "reserved_gib": torch.cuda.max_memory_reserved(check.device) / 2**30,
    }
    # What decides whether it fits: everything taken from the card, with CUDA's own part. If other
    # processes use the card, theirs is in it, too.
    taken = (total - free) / 2**30
    ratio = predicted / 2**30 / max(taken, 1e-9)
    check.expect(
        abs(ratio - 1) <= ALLOWED,
        f"memory of {way} is predicted",
        **way.values,
        **{name: round(value, 3) for name, value in peak.items()},
        taken_gib=round(taken, 3),
        predicted_gib=round(predicted / 2**30, 3),
        ratio=round(ratio, 3),
    )
    return f"{way}: {taken:.1f} GiB, {ratio:.2f} predicted"
