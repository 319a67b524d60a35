"""The time of a cohort's step in every way, and of its parts."""

import statistics
import time
from typing import Any

import torch

from benchmarks.gpu_check import models, subjects
from benchmarks.gpu_check.check import Check
from benchmarks.gpu_check.timing import Marks, median_ms
from benchmarks.gpu_check.ways import Column, Way
from kdbench.data.batches import BatchMaker, epoch_rows
from kdbench.data.dataset import LoadedData
from kdbench.training.graphs import WARM
from kdbench.training.teacher import LoadedTeacher


def run(check: Check) -> None:
    """Measure the cohort in all ways, tf32 and bf16 first, then once in fp32."""
    sizes = check.sizes
    data = subjects.noise_images(check, sizes.images)
    loaded = subjects.teacher(data, sizes.pair[0], check.device)
    precisions = ("tf32", "bf16") if check.cuda else ("fp32", "bf16")
    half = check.left() / 2.2
    best: dict[str, float] = {}
    check.values["cohort_ms"] = best
    for i, precision in enumerate(precisions):
        ways = [Way(precision), *(Way(precision, n) for n in sizes.streams)]
        until = check.left() - half if i == 0 else 0.0
        found = measured(check, ways, data, loaded, until)
        best |= {precision: min(found.values())} if found else {}
        check.free()
    if check.cuda and check.has_time("the cohort in fp32", 4):
        found = measured(check, [Way("fp32", sizes.streams[-2])], data, loaded, 0.0)
        best |= {"fp32": min(found.values())} if found else {}
    check.outcome.headline = f"cohort of {len(sizes.column)}: " + ", ".join(
        f"{precision} {ms:.2f} ms" for precision, ms in best.items()
    )


def measured(
    check: Check, ways: list[Way], data: LoadedData, loaded: LoadedTeacher, reserve: float
) -> dict[Way, float]:
    """Build a cohort for each way, let them take turns, and return the median milliseconds.

    Args:
        check: the check.
        ways: ways of one precision.
        data: training images.
        loaded: the teacher.
        reserve: seconds of the section that must be left for others.
    """
    sizes = check.sizes
    columns: dict[Way, Column] = {}
    for way in ways:
        if not check.has_time(f"{way}: building", reserve):
            break
        columns[way] = built(check, way, data, loaded)
    marked: dict[Way, list[list[float]]] = {way: [] for way in columns}
    hosts: dict[Way, list[float]] = {way: [] for way in columns}
    for i in range(sizes.rounds):
        if i and not check.has_time(f"round {i + 1}", reserve):
            break
        for way, column in columns.items():
            marks = Marks(check.device)
            for _ in range(sizes.round_steps):
                column.mark(marks)
                began = time.perf_counter()
                column.step()
                hosts[way].append(1e3 * (time.perf_counter() - began))
            column.join()
            column.mark(marks)
            marked[way].append(marks.between())
    result = {}
    for way, rounds in marked.items():
        every = [ms for one in rounds for ms in one]
        result[way] = statistics.median(every)
        report(check, way, result[way], rounds, statistics.median(hosts[way]))
    serial = [way for way in columns if way.streams == 1]
    if serial and check.has_time("parts of a step", reserve / 2):
        parts(check, columns[serial[0]], data, loaded)
    return result


def built(check: Check, way: Way, data: LoadedData, loaded: LoadedTeacher) -> Column:
    """Build a cohort and take its first steps, which record its graphs."""
    sizes = check.sizes
    check.free()
    before = torch.cuda.memory_reserved(check.device) if check.cuda else 0
    held = torch.cuda.memory_allocated(check.device) if check.cuda else 0
    began = time.perf_counter()
    column = Column(check, sizes.column, way, sizes.pair, data, loaded, sizes.batch)
    build = time.perf_counter() - began
    began = time.perf_counter()
    column.run(WARM + 2)
    row: dict[str, Any] = {"build_s": round(build, 2)}
    row["first_steps_s"] = round(time.perf_counter() - began, 2)
    if check.cuda:
        row["reserved_gib"] = (torch.cuda.memory_reserved(check.device) - before) / 2**30
        row["allocated_gib"] = (torch.cuda.memory_allocated(check.device) - held) / 2**30
    check.line(what="first steps", **way.values, **row, not_graphs=column.not_graphs())
    return column


def report(check: Check, way: Way, ms: float, rounds: list[list[float]], host: float) -> None:
    """Write the line of a way."""
    names, sizes = way.values, check.sizes
    medians = [statistics.median(one) for one in rounds]
    expected = models.predicted_cohort(names["way"], names["streams"], way.precision)
    row: dict[str, Any] = {
        "ms": round(ms, 3),
        "spread": [round(min(medians), 3), round(max(medians), 3)],
        "host_ms": round(host, 3),
        "n": sum(map(len, rounds)),
    }
    if not check.small:
        row["column_min"] = round(ms * models.COLUMN_STEPS / 6e4, 1)
        row["expected_ms"] = expected
        if expected is not None:
            row["off"] = models.off(ms, sum(expected) / 2)
        if way.precision in models.TARGET_MS:
            row["target_ms"] = models.TARGET_MS[way.precision]
            row["reached"] = ms <= models.TARGET_MS[way.precision]
    check.line(what=f"cohort of {len(sizes.column)}", **names, **row)


def parts(check: Check, column: Column, data: LoadedData, loaded: LoadedTeacher) -> None:
    """Write the time of each learner's graph, of the teacher's forward and of a batch."""
    sizes, precision = check.sizes, column.way.precision
    rows = epoch_rows(data, sizes.batch, 0, 1, "train", 4)
    make = BatchMaker(data, 4, True)
    images = make(rows[0])[0]

    def forward() -> None:
        with torch.autocast(check.device.type, torch.bfloat16, enabled=precision == "bf16"):
            loaded(images)

    ms = {
        "batch": median_ms(check.device, lambda: make(rows[0]), 10),
        "teacher": median_ms(check.device, forward, 10),
    }
    for name, learner in column.learners.items():
        learner.clock.settle()
        ms[name] = learner.clock.median_ms()
    for name, value in ms.items():
        expected = None if check.small else models.predicted(name, precision)
        check.line(
            what="part of a step",
            part=name,
            precision=precision,
            ms=round(value, 4),
            model_ms=expected,
            off=models.off(value, expected),
        )
    check.values.setdefault("parts_ms", {})[precision] = ms
