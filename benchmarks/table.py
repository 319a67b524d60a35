"""One step of a column of Table 1: kdbench's cohort compared with a plain loop, one run at a time.

Sixteen methods, resnet32x4 -> resnet8x4, 3x32x32, 100 classes, 50,000 training images of noise,
batch 64, one thread. The plain loop (``benchmarks/plain``) is a typical research script. Both take
turns in one process: a round is one step of every method, first in the plain loop, then as a cohort
in each precision. Times are this process's processor time, ratios are medians over rounds. Every
step makes a new batch with its side's own pipeline. The memory allocator has its usual behaviour
for the plain loop, and kdbench's for the cohorts.

The ceiling is the speed of this machine in one 3x3 convolution forward or one matrix product,
whichever is higher, in the precision. FLOPs are counted by torch in a cohort's step.
"ratio_at_most" is the ratio if all of a step ran at the ceiling: a higher target cannot be met on
this machine. ``--trace FILE`` writes a profile of the step to FILE, for chrome://tracing, and
prints its most expensive operations.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.plain.loop import Run as Plain
from benchmarks.plain.losses import LOSSES
from benchmarks.subjects import CLASSES, STUDENT, TEACHER, learner, machine, noise, teacher
from kdbench.data.batches import train_batches
from kdbench.data.dataset import LoadedData
from kdbench.models import zoo
from kdbench.training.memory import keep_memory
from kdbench.training.teacher import LoadedTeacher

TARGETS = {"fp32": 3.2, "bf16": 9.0}
"""Precision -> target for the speed-up of a cohort over the plain loop."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
BATCH = 64


class Column:
    """A cohort of all methods in one precision, trained step by step."""

    def __init__(
        self, precision: str, names: list[str], data: LoadedData, loaded: LoadedTeacher
    ) -> None:
        self.half, self.teacher, self.data = precision == "bf16", loaded, data
        self.learners = {name: learner(name, data, loaded, precision) for name in names}
        self.epoch = 0
        self.batches: Iterator[Any] = iter(())

    def step(self) -> dict[str, float]:
        """Train a step; return the seconds of its parts: batch, teacher, each method."""
        spent = {}
        began = time.process_time()
        batch = next(self.batches, None)
        if batch is None:
            self.epoch += 1
            self.batches = train_batches(
                self.data, batch_size=BATCH, seed=0, epoch=self.epoch, crop_pad=4, flip=True
            )
            batch = next(self.batches)
        images, labels, index = batch
        spent["batch"] = time.process_time() - began
        began = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            t = self.teacher(images)
        spent["teacher"] = time.process_time() - began
        for name, member in self.learners.items():
            began = time.process_time()
            member.train_step(images, labels, index, t)
            spent[name] = time.process_time() - began
        return spent


def compare(
    names: list[str], precisions: list[str], rounds: int
) -> tuple[dict[str, list[dict[str, float]]], dict[str, Column]]:
    """Return the seconds of every part in every round, by side, and the cohorts."""
    data = noise(50_000, CLASSES)
    loaded = teacher(data)
    network = zoo.create(TEACHER, num_classes=CLASSES, in_channels=3)
    network.load_state_dict(loaded.network.state_dict())
    plain = {
        name: Plain(name, zoo.create(STUDENT, num_classes=CLASSES, in_channels=3), network, data)
        for name in names
    }
    for run in plain.values():
        run.optimizer.param_groups[0]["lr"] = 1e-4
    columns = {precision: Column(precision, names, data, loaded) for precision in precisions}
    sides: dict[str, list[dict[str, float]]] = {side: [] for side in ("plain", *precisions)}
    for i in range(rounds + 1):  # the first warms up
        keep_memory(False)
        steps = {name: seconds(run.step) for name, run in plain.items()}
        keep_memory()
        cohorts = {precision: column.step() for precision, column in columns.items()}
        if i:
            sides["plain"].append(steps)
            for precision, spent in cohorts.items():
                sides[precision].append(spent)
    return sides, columns


def report(sides: dict[str, list[dict[str, float]]], columns: dict[str, Column]) -> None:
    """Print a JSON line per figure, and a table."""

    def ms(side: str, part: str) -> float:
        return round(1e3 * statistics.median(row[part] for row in sides[side]), 1)

    origin = {"n": len(sides["plain"])} | machine()
    names = list(sides["plain"][0])
    table = [["", "plain", *columns], ["teacher and batch", "-"]]
    table[1] += [f"{ms(side, 'teacher') + ms(side, 'batch'):,.0f}" for side in columns]
    for name in names:
        row = {side: ms(side, name) for side in sides}
        print(json.dumps({"what": f"{name}: step, ms", **row, **origin}), flush=True)
        table.append([name, *(f"{value:,.0f}" for value in row.values())])
    total = ["all, ms", f"{sum(ms('plain', name) for name in names):,.0f}"]
    times = ["times faster", ""]
    for precision, column in columns.items():
        pairs = [
            (sum(a.values()), sum(b.values()))
            for a, b in zip(sides["plain"], sides[precision], strict=True)
        ]
        ratios = sorted(a / b for a, b in pairs)
        ratio, spent = statistics.median(ratios), statistics.median(b for _, b in pairs)
        flops, ceiling = counted(column), best_flops(DTYPES[precision])
        data = ms(precision, "batch") / 1e3 / spent
        line = {
            "what": f"{len(names)} methods, plain loop / cohort, {precision}",
            "ratio": round(ratio, 3),
            "spread": [round(ratios[0], 3), round(ratios[-1], 3)],
            "target": TARGETS[precision],
            "reached": ratio >= TARGETS[precision],
            "ratio_at_most": round(statistics.median(a for a, _ in pairs) * ceiling / flops, 2),
            "cohort_ms": round(1e3 * spent),
            "plain_ms": round(1e3 * statistics.median(a for a, _ in pairs)),
            "gflop": round(flops / 1e9, 1),
            "gflop_per_s": round(flops / spent / 1e9, 1),
            "ceiling_gflop_per_s": round(ceiling / 1e9, 1),
            "share_of_ceiling": round(flops / spent / ceiling, 3),
            "share_of_batches": round(data, 5),
        }
        print(json.dumps(line | origin), flush=True)
        total.append(f"{1e3 * spent:,.0f}")
        times.append(f"{ratio:.2f}")
    for cells in [table[0], ["---", *["---:"] * (len(table[0]) - 1)], *table[1:], total, times]:
        print("| " + " | ".join(cells) + " |")


def counted(column: Column) -> int:
    """Count the FLOPs of convolutions and matrix products in a cohort's step."""
    with FlopCounterMode(display=False) as counter:
        column.step()
    return counter.get_total_flops()


def best_flops(dtype: torch.dtype) -> float:
    """Return the FLOP/s of this machine's fastest operation, with the same number of threads."""
    a, b = torch.randn(2, 2048, 2048).to(dtype)
    conv = torch.nn.Conv2d(128, 128, 3, padding=1, bias=False, dtype=dtype)
    conv.to(memory_format=torch.channels_last).requires_grad_(False)
    x = torch.randn(BATCH, 128, 16, 16).to(dtype).to(memory_format=torch.channels_last)
    work: list[tuple[int, Callable[[], object]]] = [
        (2 * 2048**3, lambda: a @ b),
        (2 * BATCH * 128 * 16 * 16 * 128 * 9, lambda: conv(x)),
    ]
    return max(flops / min(seconds(do) for _ in range(20)) for flops, do in work)


def seconds(action: Callable[[], object]) -> float:
    """Return the processor time of an action."""
    began = time.process_time()
    action()
    return time.process_time() - began


def trace(column: Column, file: Path) -> None:
    """Write a profile of a step, and print its most expensive operations."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        column.step()
    profile.export_chrome_trace(str(file))
    print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=15))


def main() -> None:
    """Measure, and print lines and table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="+", default=list(LOSSES), choices=list(LOSSES))
    parser.add_argument("--precisions", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trace", type=Path, metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sides, columns = compare(options.methods, options.precisions, options.rounds)
    report(sides, columns)
    if options.trace:
        trace(columns[options.precisions[0]], options.trace)


if __name__ == "__main__":
    main()
