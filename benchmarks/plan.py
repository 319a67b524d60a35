"""Time of ``kdbench plan``, from the YAML file to the last line, and its growth.

A line for each number of runs, each measured in a separate process; ``processor`` and ``ms_a_run``
are processor time. Imports and counting the costs of methods, which do not depend on the number of
runs, are included.

python -m benchmarks.plan [RUNS ...]
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COUNTS = (1_000, 3_000, 10_000, 30_000, 100_000)
LARGE = 90_000
TARGET = 15.0
"""Largest time in seconds for 100,000 runs."""

METHODS = "kd, fitnets, at, sp, vid, cc, rkd, pkt, crd, irg, semckd, semckd+at"
GRID = """
name: large
dataset: cifar100
protocol: semckd
seeds: [{seeds}]
pairs:
  - resnet32x4 -> vgg8
  - resnet32x4 -> vgg13
  - vgg13 -> ShuffleV2
  - resnet32x4 -> ShuffleV2
  - wrn_40_2 -> MobileNetV2
  - vgg13 -> vgg8
  - resnet32x4 -> resnet8x4
  - wrn_40_2 -> wrn_16_2
  - resnet56 -> resnet20
  - resnet110 -> resnet32
methods: [{methods}]
"""


def main() -> None:
    """Print a JSON line per number of runs, each measured in a fresh process."""
    counts = [int(text) for text in sys.argv[1:]]
    if len(counts) == 1:
        print(json.dumps(measured(*counts)), flush=True)
        return
    for count in counts or COUNTS:
        subprocess.run([sys.executable, __file__, str(count)], check=True)


def measured(wanted: int) -> dict[str, str | float]:
    """Plan about ``wanted`` runs, and return the times."""
    seeds = -(-wanted // (10 * (METHODS.count(",") + 2)))
    text = GRID.format(seeds=", ".join(map(str, range(seeds))), methods=METHODS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.yaml"
        path.write_text(text)
        began, used = time.perf_counter(), time.process_time()
        from kdbench.grid import expand, parsing  # imports are part of the command's time

        expansion = expand.expand(grid := parsing.load(path))
        expanded = time.perf_counter()
        from kdbench.cli import plan, plan_text

        plan_text.text(plan.estimated(grid, expansion, Path(folder) / "runs", None))
        ended, used = time.perf_counter(), time.process_time() - used
    n = len(expansion.runs)
    return {
        "what": "plan of a grid, imports included",
        "seconds": round(ended - began, 2),
        "seconds_expand": round(expanded - began, 2),
        "processor": round(used, 2),
        "ms_a_run": round(1000 * used / n, 3),
        **({"ratio": round((ended - began) / TARGET, 3)} if wanted >= LARGE else {}),
        "n": n,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one used",
    }


if __name__ == "__main__":
    main()
