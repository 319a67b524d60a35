"""How long ``kdbench --help`` takes to answer, as a fresh process: median of n.

python benchmarks/startup.py [N]
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time

TARGET = 0.3
"""Seconds that it may take."""


def main() -> None:
    """Print one JSON object."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    seconds = []
    for _ in range(n):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "kdbench", "--help"], check=True, stdout=subprocess.DEVNULL
        )
        seconds.append(time.perf_counter() - began)
    out = {
        "what": "kdbench --help",
        "seconds": round(statistics.median(seconds), 3),
        "ratio": round(statistics.median(seconds) / TARGET, 3),
        "n": n,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one used",
    }
    print(json.dumps(out))


if __name__ == "__main__":
    main()
