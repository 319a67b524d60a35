"""How long ``kdbench plan`` takes on a grid of 100,000 runs, from the YAML file to the last line.

python benchmarks/plan.py [RUNS]
"""

import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

TARGET = 15.0
"""Seconds that 100,000 runs may take."""

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
    """Print one JSON object."""
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    seeds = -(-wanted // (10 * (METHODS.count(",") + 2)))
    text = GRID.format(seeds=", ".join(map(str, range(seeds))), methods=METHODS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.yaml"
        path.write_text(text)
        began = time.perf_counter()
        from kdbench import expand, gridfile  # what a command imports counts

        expansion = expand.expand(grid := gridfile.load(path))
        expanded = time.perf_counter()
        from kdbench import plan

        plan.render(grid, expansion, Path(folder) / "runs", None)
        ended = time.perf_counter()
    out = {
        "what": "plan of a grid, imports included",
        "seconds": round(ended - began, 2),
        "seconds_expand": round(expanded - began, 2),
        "ratio": round((ended - began) / TARGET, 3),
        "n": len(expansion.runs),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one used",
    }
    print(json.dumps(out))


if __name__ == "__main__":
    main()
