"""Ends trainings at every file operation of a checkpoint and of a run's end, and resumes them.

At each operation (open, write, fsync, rename, link, unlink ...) in the folder of runs, the process
is killed by SIGKILL, or every further write fails because the disk is full. Then the same command
trains on, without faults. A line per scenario: points tried; trainings lost (steps before the last
completed checkpoint were trained again); points with a changed bit in a result, curve or weight;
points with files left over; messages about a full disk that do not name a file; and the number of
steps trained twice over all points. The exit code is 1 if anything but the last is not 0.

python -m benchmarks.kills [SCENARIO ...]
"""

import json
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.kills.survey import survey
from benchmarks.kills.trainings import SCENARIOS


def main(names: Sequence[str]) -> int:
    """Run the scenarios whose names contain one of ``names``, or all."""
    logging.disable(logging.WARNING)
    clean = True
    for name, scenario in SCENARIOS.items():
        if names and not any(part in name for part in names):
            continue
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            found = survey(scenario, Path(folder))
        clean = clean and found.clean
        line = {
            "benchmark": "kills",
            "scenario": name,
            "points": found.points,
            "trainings_lost": len(found.lost),
            "bits_changed": len(found.changed),
            "files_left_over": len(found.litter),
            "unclear_messages": len(found.unclear),
            "steps_trained_twice": found.repeated,
            "seconds": round(time.monotonic() - began),
        }
        sys.stdout.write(json.dumps(line) + "\n")
        for point in (*found.lost, *found.changed, *found.litter, *found.unclear):
            sys.stderr.write(f"{name}: {point}\n")
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
