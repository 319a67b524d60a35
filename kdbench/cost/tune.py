"""``kdbench doctor --tune``: measure once how this machine trains fastest, say it, and keep it."""

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
from kdbench.cost.estimate import shape
from kdbench.cost.saved_tuning import MARGIN, MeasuredSplit, Tuning
from kdbench.cost.throughput import CoreSplit, Workload, measure, ways
from kdbench.grid import parsing
from kdbench.runs import environment

BUSY = 0.25
"""Load of a core at which other work spoils the figures."""

Rates = Mapping[CoreSplit, Sequence[float]]


def of_grid(file: Path, overrides: Sequence[str] = ()) -> Workload:
    """The first pair of a grid, at the size of its images and batches.

    Raises:
        UserError: what is wrong with the grid.
    """
    grid = parsing.load(file, overrides)
    pair, of = grid.pairs[0], shape(grid.dataset)
    batch = grid.protocol.training(pair.student, pair.lr).batch_size
    return Workload(pair.teacher, pair.student, batch, of.channels, of.size, of.classes)


def tune(subject: Workload) -> Group:
    """Measure for about a minute, keep what was found unless other work was running, and say it.

    Raises:
        UserError: a process died. OSError: the figures cannot be kept.
    """
    if torch.cuda.is_available():
        return gpus(subject)
    load = os.getloadavg()[0]
    rates = measure(subject, [*ways(environment.cores()), CoreSplit(precision="bf16")])
    tuning = summary(subject, rates)
    if load < BUSY * (os.cpu_count() or 1):
        kept = f"kept in {saved_tuning.save(tuning)} for {saved_tuning.name()}"
    else:
        kept = f"not kept: the load was {load:.1f} before; measure again when nothing else runs"
    return Group(table(subject, rates), *map(Text, [*advice(tuning), kept]))


def summary(subject: Workload, rates: Rates) -> Tuning:
    """Medians over rounds."""
    middle = {slot: statistics.median(found) for slot, found in rates.items()}
    found = tuple(
        MeasuredSplit(workers=slot.workers, threads=slot.threads, steps_per_s=round(rate, 4))
        for slot, rate in middle.items()
        if slot.precision == "fp32"
    )
    bf16 = round(middle[CoreSplit(precision="bf16")] / middle[CoreSplit()], 3)
    return Tuning(subject=str(subject), ways=found, bf16=bf16)


def table(subject: Workload, rates: Rates) -> Table:
    """Every way: median steps per second, their spread, and times one thread's."""
    one = statistics.median(rates[CoreSplit()])
    drawn = Table(
        *(Column(head, justify="right") for head in ("workers", "threads", "precision")),
        *(Column(head, justify="right") for head in ("steps/s", "rounds", "images/s", "times")),
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title=str(subject),
        title_justify="left",
        title_style="",
    )
    for slot, found in rates.items():
        rate = statistics.median(found)
        drawn.add_row(
            str(slot.workers),
            str(slot.threads),
            slot.precision,
            f"{rate:.2f}",
            f"{min(found):.2f} to {max(found):.2f}",
            f"{rate * subject.batch_size:,.0f}",
            f"{rate / one:.2f}",
        )
    return drawn


def advice(tuning: Tuning) -> list[str]:
    """What follows from the figures: how to use the cores, and which precision."""
    best = tuning.best()
    if best is None or best.threads == 1:
        then = "kdbench run does so by itself where a grid names no workers"
    else:
        then = "put that into a grid before its first run: threads change how sums are rounded"
    return [f"executor: {best}   # {then}", precision(tuning.bf16, "this processor", amx())]


def precision(bf16: float, where: str, fast: bool) -> str:
    """A sentence on precision.

    Args:
        bf16: its speed in fp32's. where: it was measured. fast: there is hardware for it.
    """
    share = f"bf16 trains at {bf16:.2f} times the speed of fp32 on {where}"
    if bf16 >= MARGIN:
        return f"{share}: protocol.precision: bf16 pays; it moves numbers, and makes other runs"
    return f"{share}{'' if fast else ', which has no AMX'}: leave precision at fp32"


def amx() -> bool:
    """Whether the processor multiplies matrices of bf16 in hardware."""
    told = getattr(torch.cpu, "_is_amx_tile_supported", None)  # torch has no public name
    return bool(told and told())


def gpus(subject: Workload) -> Group:
    """The same where there are GPUs: one worker each is the rule, so only precision is measured."""
    n, name = torch.cuda.device_count(), torch.cuda.get_device_name(0)
    full, half = CoreSplit(), CoreSplit(precision="bf16")
    rates = measure(subject, [full, half], seconds=3.0, device="cuda:0")
    bf16 = statistics.median(rates[half]) / statistics.median(rates[full])
    told = f"{n} GPUs: one worker each, which is what kdbench run does by itself."
    return Group(table(subject, rates), Text(told), Text(precision(bf16, name, True)))
