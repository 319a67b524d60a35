"""``kdbench doctor --tune``: measure how this machine trains fastest, and save the result."""

import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from rich import box
from rich.console import Group
from rich.table import Column, Table
from rich.text import Text

from kdbench.cost import saved_tuning
from kdbench.cost.estimate import data_shape
from kdbench.cost.saved_tuning import MeasuredSplit, Tuning, precision_advice
from kdbench.cost.throughput import CoreSplit, Workload, core_splits, measure
from kdbench.cost.tune_gpu import tune_gpu
from kdbench.grid import parsing
from kdbench.runs import environment

BUSY = 0.25
"""Load per core from which other work distorts the measurements."""

Rates = Mapping[CoreSplit, Sequence[float]]


def workload_of_grid(file: Path, overrides: Sequence[str] = ()) -> Workload:
    """Return a workload like a grid's first pair, with its image and batch size.

    Raises:
        UserError: the grid has mistakes.
    """
    grid = parsing.load(file, overrides)
    pair, shape = grid.pairs[0], data_shape(grid.dataset)
    batch = grid.protocol.training(pair.student, pair.lr).batch_size
    return Workload(pair.teacher, pair.student, batch, shape.channels, shape.size, shape.classes)


def tune(workload: Workload) -> Group:
    """Measure for about a minute, and return the result; save it unless the machine was busy.

    Raises:
        UserError: a process died.
        OSError: the result cannot be saved.
    """
    if torch.cuda.is_available():
        return tune_gpu(workload, torch.device("cuda:0"))
    load = os.getloadavg()[0]
    rates = measure(workload, [*core_splits(environment.cores()), CoreSplit(precision="bf16")])
    tuning = summary(workload, rates)
    if load < BUSY * (os.cpu_count() or 1):
        saved = f"saved in {saved_tuning.save(tuning)} for {saved_tuning.machine_name()}"
    else:
        saved = f"not saved: the load was already {load:.1f}; measure again when nothing else runs"
    return Group(table(workload, rates), *map(Text, [*advice(tuning), saved]))


def summary(workload: Workload, rates: Rates) -> Tuning:
    """Return the tuning given by the medians over rounds."""
    medians = {split: statistics.median(rounds) for split, rounds in rates.items()}
    splits = tuple(
        MeasuredSplit(workers=split.workers, threads=split.threads, steps_per_s=round(rate, 4))
        for split, rate in medians.items()
        if split.precision == "fp32"
    )
    bf16 = round(medians[CoreSplit(precision="bf16")] / medians[CoreSplit()], 3)
    return Tuning(subject=str(workload), ways=splits, bf16=bf16)


def table(workload: Workload, rates: Rates) -> Table:
    """Return a table of all splits: median steps per second, range, and ratio to one thread."""
    one_thread = statistics.median(rates[CoreSplit()])
    result = Table(
        *(Column(head, justify="right") for head in ("workers", "threads", "precision")),
        *(Column(head, justify="right") for head in ("steps/s", "rounds", "images/s", "times")),
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title=str(workload),
        title_justify="left",
        title_style="",
    )
    for split, rounds in rates.items():
        rate = statistics.median(rounds)
        result.add_row(
            str(split.workers),
            str(split.threads),
            split.precision,
            f"{rate:.2f}",
            f"{min(rounds):.2f} to {max(rounds):.2f}",
            f"{rate * workload.batch_size:,.0f}",
            f"{rate / one_thread:.2f}",
        )
    return result


def advice(tuning: Tuning) -> list[str]:
    """Return the recommended use of the cores, and the recommended precision."""
    best = tuning.best()
    if best is None or best.threads == 1:
        note = "kdbench run does this by default if the grid sets no workers"
    else:
        note = "set this in a grid before its first run, since threads change the rounding of sums"
    return [
        f"executor: {best}   # {note}",
        precision_advice(tuning.bf16, "this processor", has_amx()),
    ]


def has_amx() -> bool:
    """Check whether the processor multiplies bf16 matrices in hardware."""
    is_supported = getattr(torch.cpu, "_is_amx_tile_supported", None)  # torch has no public name
    return bool(is_supported and is_supported())
