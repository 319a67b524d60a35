"""Simulates the rules that decide which method is better, and prints the tables of their errors.

Grids are drawn with known true accuracies, and each rule's statements are compared with the truth:
false positives, coverage of intervals, power, leading groups, rank ranges. The scenarios are in
``benchmarks/decisions/scenarios.py``. The seed is fixed. All tables take about two minutes of one
core; a share of 5 % of 12,000 grids has a standard error of 0.2 points.

python -m benchmarks.decisions [--grids N] [--only TABLE ...]
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence

from benchmarks.decisions import committed, error_rates, power
from benchmarks.decisions.scenarios import Scenario, first_table
from benchmarks.decisions.table import Table

GRIDS = 12_000
TABLES: dict[str, tuple[Callable[[Sequence[Scenario], int], list[Table]], float]] = {
    "familywise": (error_rates.familywise, 1.0),
    "unseen": (error_rates.unseen, 1.0),
    "elsewhere": (error_rates.elsewhere, 0.5),
    "rows": (error_rates.few_rows, 1.0),
    "discoveries": (error_rates.discoveries, 0.5),
    "power": (power.power, 0.5),
    "groups": (power.groups, 0.5),
    "ranges": (power.ranges, 0.25),
    "limits": (error_rates.limits, 0.5),
    "noisy": (power.noisy_in_group, 0.5),
}
"""Name -> function, and its share of ``--grids``."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--grids", type=_count, default=GRIDS, metavar="N", help="grids a scenario")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=list(TABLES), metavar="TABLE")
    options = parser.parse_args(arguments)
    residuals, absent = committed.read()
    for name in absent:
        sys.stdout.write(f"Scenario records is without {name}: results/{name} has no records.\n\n")
    scenarios = first_table(residuals)
    for name in options.only:
        function, share = TABLES[name]
        began = time.process_time()
        grids = max(1, round(share * options.grids))
        for table in function(scenarios, grids):
            sys.stdout.write(f"{table}\n\n")
        seconds = time.process_time() - began
        sys.stdout.write(f"({name}: {grids:,} grids a cell, {seconds:.0f} s)\n\n")
        sys.stdout.flush()


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


if __name__ == "__main__":
    main()
