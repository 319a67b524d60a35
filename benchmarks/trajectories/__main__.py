"""Whole trainings by the authors' own code and by kdbench, side by side.

The authors' main and loops, imported from checkouts that the user provides, and kdbench's grid,
expansion and cohort train in float64 from the same weights on the same batches. Per method, the
largest differences are printed; where they exceed 1e-9, also those of the authors' own training
when its first weights change by 1e-15 of themselves: rounding alone may make so much.

python -m benchmarks.trajectories --peers FOLDER [--methods kd at ...] [--epochs 2] [--steps 4]
                                  [--pair TEACHER STUDENT] [--json FILE]

FOLDER holds RepDistiller, SemCKD, SimKD and mdistiller, or some of them. The exit code is 1 if a
difference is more than 1e-9 and more than 1000 times the authors' own.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from kdbench.models import zoo

from .cases import CASES, REPOSITORIES, SKIPPED
from .comparison import Outcome, compare
from .differences import PARTS


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare all cases, print a table, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.trajectories",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--peers", type=Path, help="folder of the authors' repositories")
    parser.add_argument("--methods", nargs="+", help="rows, such as kd or crd+kd (default: all)")
    parser.add_argument("--pair", nargs=2, help="teacher and student (default: small ResNets)")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    names = [repository.name for repository in REPOSITORIES]
    present = [x for x in names if options.peers and (options.peers / x).is_dir()]
    known = sorted({case.row for case in CASES})
    problem = ""
    if not present:
        problem = f"--peers: a folder with checkouts of {', '.join(names)}, or of some of them"
    elif unknown := [x for x in options.methods or () if x not in known]:
        problem = f"--methods: {unknown[0]} is none of {', '.join(known)}"
    elif options.epochs < 1 or options.steps < 1:
        problem = "--epochs and --steps: 1 or more"
    elif options.pair and len({x for x in options.pair if zoo.known(x)}) < 2:
        problem = f"--pair: two different networks that kdbench has, not {' '.join(options.pair)}"
    elif options.json and not options.json.parent.is_dir():
        problem = f"--json: {options.json.parent} is no folder"
    if problem:
        print(f"benchmarks.trajectories: {problem}", file=sys.stderr)
        return 2
    outcomes = []
    print(header())
    for repository in REPOSITORIES:
        if repository.name not in present:
            continue
        cases = [
            case
            for case in CASES
            if case.repository == repository and case.row in (options.methods or known)
        ]
        pair = tuple(options.pair or repository.pair)
        length = (options.epochs, options.steps)
        for outcome in compare(options.peers / repository.name, cases, pair, *length):
            outcomes.append(outcome)
            print(line(outcome), flush=True)
    if not options.methods:
        for what, reason in SKIPPED.items():
            print(f"not compared: {what}: {reason}")
    if options.json:
        settings = {"epochs": options.epochs, "steps": options.steps, "torch": torch.__version__}
        lines = [as_json(outcome) | settings for outcome in outcomes]
        options.json.write_text("".join(f"{json.dumps(x)}\n" for x in lines))
    return int(any(outcome.wrong for outcome in outcomes))


def header() -> str:
    """Return the table's first line."""
    columns = "".join(f"{part:>11}" for part in (*PARTS, "own"))
    return f"{'repository':<13}{'method':<10}{'pair':<25}{columns}  verdict"


def line(outcome: Outcome) -> str:
    """Return a line of the table; ``own``: the authors' own sensitivity, if it was measured."""
    values = asdict(outcome.found) if outcome.found else {}
    cells = [f"{values[part]:.1e}" if values else "" for part in PARTS]
    cells.append(f"{outcome.sensitivity.largest:.1e}" if outcome.sensitivity else "")
    where = f"{outcome.case.repository.name:<13}{outcome.case.row:<10}"
    pair = f"{' -> '.join(outcome.pair):<25}"
    return where + pair + "".join(f"{cell:>11}" for cell in cells) + f"  {outcome.verdict}"


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as plain values."""
    return {
        "repository": outcome.case.repository.name,
        "method": outcome.case.row,
        "pair": list(outcome.pair),
        "differences": asdict(outcome.found) if outcome.found else None,
        "sensitivity": asdict(outcome.sensitivity) if outcome.sensitivity else None,
        "verdict": outcome.verdict,
        "not compared": dict(outcome.case.unused),
    }


if __name__ == "__main__":
    sys.exit(main())
