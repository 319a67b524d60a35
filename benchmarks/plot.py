"""Plot of how times grow, from the lines that the benchmarks print.

python -m benchmarks.plot docs/bench.jsonl docs/speed.png
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")
import matplotlib.pyplot as plt

PANELS = (
    (
        "learner-step in a cohort / alone",
        "learners",
        "ms_all",
        "learners in a cohort",
        "a step, ms",
    ),
    ("an image's time in a batch / in a batch of 64", "batch", "ms", "batch", "KD's step, ms"),
    ("report: wall clock", "n", "seconds", "records", "kdbench report, s"),
    ("plan of a grid, imports included", "n", "seconds", "runs", "kdbench plan, s"),
)
"""Value of ``what`` of the lines, keys of x and y, and titles of the axes."""


def draw(lines: Sequence[dict[str, Any]], file: Path) -> None:
    """Draw a panel per benchmark: measured times, and proportional growth."""
    figure, axes = plt.subplots(1, len(PANELS), figsize=(13, 3.2), layout="constrained")
    for ax, (what, x, y, x_title, y_title) in zip(axes, PANELS, strict=True):
        points = sorted(
            (line[x], line[y]) for line in lines if str(line.get("what")) == what and x in line
        )
        if not points:
            raise SystemExit(f"no line of {what!r}: run that benchmark first")
        xs, ys = zip(*points, strict=True)
        ax.loglog(xs, ys, "o-", color="#0b559f", label="measured")
        # Points above the line through the first point grow faster than in proportion.
        ax.loglog(xs, [ys[0] * v / xs[0] for v in xs], "--", color="0.5", label="in proportion")
        ax.set(xlabel=x_title, ylabel=y_title)
        ax.set_xticks(xs, [f"{v:,}" for v in xs], fontsize=7, rotation=30)
        ends = [ys[0], *([ys[-1]] if max(ys[0] / ys[-1], ys[-1] / ys[0]) > 1.3 else [])]
        ax.set_yticks(ends, [f"{v:,.0f}" if v >= 100 else f"{v:.1f}" for v in ends], fontsize=7)
        ax.minorticks_off()
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(file, dpi=150)


def main() -> None:
    """Read the lines and write the plot."""
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    text = Path(sys.argv[1]).read_text().splitlines()
    draw([json.loads(line) for line in text if line.startswith("{")], Path(sys.argv[2]))


if __name__ == "__main__":
    main()
