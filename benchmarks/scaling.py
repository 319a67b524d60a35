"""Gain of a second core, with workers and with threads, for a grid and the networks of Table 1.

The grid is all of ``experiments/demo.yaml`` with fewer epochs. Each setting trains it from scratch
into a new folder, and settings take turns. Seconds are from the start of the first run to the last
record, by the files' times. They exclude the workers' start, mostly importing torch, and include
the teacher, for which all students wait. ``runs_with_other_numbers`` counts the runs with results
different from those of one worker with one thread; the number of workers changes none.

The networks are resnet32x4 -> resnet8x4 with KD, batch 64, in processes that run at the same
time, measured as by ``kdbench doctor --tune``.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
from pathlib import Path
from typing import Any

from kdbench.cost import throughput
from kdbench.cost.throughput import CoreSplit
from kdbench.execution import local
from kdbench.grid import expand, parsing
from kdbench.grid.grid import Executor
from kdbench.runs import records
from kdbench.runs.records import Result

TARGET = 1.8
"""Smallest speed-up of two workers with one thread each."""

ROOT = Path(__file__).resolve().parents[1]
ONE, TWO, THREADS = WAYS = (CoreSplit(1, 1), CoreSplit(2, 1), CoreSplit(1, 2))


def train(slot: CoreSplit, epochs: int) -> tuple[float, dict[str, Result | None]]:
    """Train the grid; return the seconds, and the result of every run."""
    overrides = [f"protocol.epochs={epochs}", f"protocol.pretrain_epochs={max(1, epochs // 6)}"]
    runs = expand.expand(parsing.load(ROOT / "experiments" / "demo.yaml", overrides)).runs
    executor = Executor(kind="local", workers=slot.workers, threads=slot.threads, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        for _ in local.run_all(runs, path, ROOT / "data", executor):
            pass
        start = min(file.stat().st_mtime for file in path.glob("*/run.json"))
        end = max(file.stat().st_mtime for file in path.glob("*/record.json"))
        loaded = records.load(path, (run.id for run in runs))
    return end - start, {run_id: record.result for run_id, record in loaded.items()}


def grid(rounds: int, epochs: int) -> None:
    """Measure the grid, and print the lines."""
    seconds: dict[CoreSplit, list[float]] = {slot: [] for slot in WAYS}
    numbers: dict[CoreSplit, dict[str, Result | None]] = {}
    for i in range(rounds):
        for slot in WAYS if i % 2 == 0 else WAYS[::-1]:
            spent, numbers[slot] = train(slot, epochs)
            seconds[slot].append(spent)
    for slot in (TWO, THREADS):
        ratios = [a / b for a, b in zip(seconds[ONE], seconds[slot], strict=True)]
        same = numbers[ONE]
        other = sum(numbers[slot].get(run_id) != result for run_id, result in same.items())
        say(
            f"demo grid of {len(same)} runs, {epochs} epochs: {named(slot)} against {named(ONE)}",
            ratios,
            slot,
            seconds_one=round(statistics.median(seconds[ONE]), 1),
            seconds=round(statistics.median(seconds[slot]), 1),
            runs_with_other_numbers=other,
        )


def networks(rounds: int, seconds: float) -> None:
    """Measure the networks, and print the lines."""
    subject = throughput.Workload(batch_size=64)
    rates = throughput.measure(subject, WAYS, rounds=rounds, seconds=seconds)
    for slot in (TWO, THREADS):
        say(
            f"{subject}, steps/s: {named(slot)} against {named(ONE)}",
            [b / a for a, b in zip(rates[ONE], rates[slot], strict=True)],
            slot,
            steps_per_s_one=round(statistics.median(rates[ONE]), 3),
            steps_per_s=round(statistics.median(rates[slot]), 3),
        )


def named(slot: CoreSplit) -> str:
    """Return a readable name of a setting."""
    return f"{slot.workers} x {slot.threads} thread{'s' if slot.threads > 1 else ''}"


def say(what: str, ratios: list[float], slot: CoreSplit, **more: Any) -> None:
    """Print a JSON line; only two workers have a target."""
    ratio = statistics.median(ratios)
    target = {"target": TARGET, "reached": ratio >= TARGET} if slot == TWO else {}
    line = {
        "what": what,
        "ratio": round(ratio, 3),
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
        **target,
        **more,
        "n": len(ratios),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "load": LOAD,
    }
    print(json.dumps(line), flush=True)


def main() -> None:
    """Measure, and print a JSON line per figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--epochs", type=int, default=6, help="Epochs of the grid's runs, instead of its 60."
    )
    parser.add_argument(
        "--seconds", type=float, default=8.0, help="Seconds per setting of the networks and round."
    )
    parser.add_argument("--only", choices=["grid", "networks"])
    options = parser.parse_args()
    if options.only != "grid":
        networks(options.rounds, options.seconds)
    if options.only != "networks":
        grid(options.rounds, options.epochs)


LOAD = round(os.getloadavg()[0], 1)
"""Load of the machine before the measurements."""

if __name__ == "__main__":
    main()
