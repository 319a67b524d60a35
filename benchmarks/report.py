"""Time of ``kdbench report`` by number of (synthetic) records.

"wall clock" is the time of the command as a user sees it: all cores, compiled modules, warm disk;
median of ``TIMES``. ``processor`` is the processor time of all its processes. The other lines split
the processor time.

Each number of records is measured in a separate process on one thread. The command is called as the
shell calls it, on a grid's YAML and a folder of records. "report in all" includes its imports and
the drawing process. It is split into: imports; the grid with its runs and their ids; reading the
records; statistics; plots (as SVG and PNG); tables; Markdown; CSV and Parquet; LaTeX; the page in
HTML; the archive (up to 10,000 runs); the terminal's table. "rest" is writing the files and
everything else. ``us_a_record`` leaves out imports and plots, whose time is constant.

The records have no learning curves; only the search for them counts.

python -m benchmarks.report [RECORDS ...]
"""

import contextlib
import importlib
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kdbench.runs.records import Cost, Record, Result

METHODS = (
    "kd, fitnets, at, sp, cc, vid, rkd, pkt, ab, ft, nst, crd, irg, dkd, srrl, dist, ttm, simkd, "
    "semckd"
)
SEEDS = 5
GRID = """
name: bench
title: Synthetic
dataset: cifar100
protocol: semckd
seeds: [{seeds}]
pairs: [{pairs}]
methods: [{methods}]
report: {{ari_of: semckd}}
"""
COUNTS = (1_000, 3_000, 10_000, 30_000, 100_000)
TARGET = {10_000: 3.0, 100_000: 20.0}
"""Records -> target time of a report in seconds."""
TIMES = 3
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

LATER = (
    "kdbench.report.leaderboard",
    "kdbench.report.several_grids",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "matplotlib.style",
    "jinja2",
    "pandas",
    "pyarrow.parquet",
    "rich.console",
    "rich.table",
    "scipy.special",
    "scipy.stats",
)
"""Modules that the command imports on demand."""
PARTS = (
    ("grid and ids", "kdbench.grid.parsing", "load"),
    ("grid and ids", "kdbench.grid.expand", "expand"),
    ("load", "kdbench.runs.evidence", "gather"),
    ("statistics", "kdbench.stats.aggregate", "aggregate"),
    ("plots", "kdbench.report.plots.pictures", "pictures"),
    ("tables", "kdbench.report.leaderboard", "make_tables"),
    ("Markdown", "kdbench.report.leaderboard", "markdown"),
    ("CSV and Parquet", "kdbench.report.text.spreadsheet", "csv"),
    ("CSV and Parquet", "kdbench.runs.archive", "table"),
    ("LaTeX", "kdbench.report.text.latex", "leaderboard"),
    ("page", "kdbench.report.page.html", "render"),
    ("archive", "kdbench.runs.archive", "dump"),
    ("terminal", "kdbench.report.text.terminal", "Terminal"),
    ("terminal", "rich.console", "Console.print"),
)
"""Part, module, function."""


def main() -> None:
    """Print one JSON object per line."""
    counts = [int(text) for text in sys.argv[1:]]
    if len(counts) == 1:
        measure(*counts)
        return
    for count in counts or COUNTS:
        command = [sys.executable, __file__, str(count)]
        subprocess.run(command, check=True, env=os.environ | ONE_THREAD)


def measure(count: int) -> None:
    """Write about ``count`` records, then measure their report."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # In a separate process, so that nothing is imported or computed before the measurement.
        made = [sys.executable, __file__, "--fill", name, str(count)]
        n = int(subprocess.run(made, check=True, capture_output=True, text=True).stdout)
        for module in LATER:
            importlib.import_module(module)
        # Imports of Python and this file count, too.
        seconds: dict[str, float] = defaultdict(float, {"imports": time.process_time()})
        for what, module, function in PARTS:
            clocked(seconds, what, module, function)
        from kdbench.cli import main as command

        flags = [f"--{what}={folder / what}" for what in ("runs", "results")]
        flags = ["report", f"--grid={folder / 'grid.yaml'}", *flags]
        before = others()
        with (folder / "output").open("w") as output, contextlib.redirect_stdout(output):
            command(flags, standalone_mode=False)
        drawn = others() - before
        total = time.process_time() + drawn
        elapsed, used = zip(*(timed(flags) for _ in range(TIMES)), strict=True)
    seconds["plots"] += drawn
    seconds["rest"] = total - sum(seconds.values())
    grows = total - seconds["imports"] - seconds["plots"]
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    for what, value in (*seconds.items(), ("report in all", total)):
        more = {"us_a_record": round(1e6 * grows / n, 1)} if what == "report in all" else {}
        show(what, value, n, machine=f"{machine}, one used", **more)
    target = TARGET.get(count)
    wall = statistics.median(elapsed)
    ratio = {"ratio": round(wall / target, 3)} if target else {}
    processor = round(statistics.median(used), 3)
    show("wall clock", wall, n, processor=processor, **ratio, machine=machine)


def show(what: str, seconds: float, n: int, **more: Any) -> None:
    """Print one line."""
    out = {"what": f"report: {what}", "seconds": round(seconds, 3), "n": n, **more}
    print(json.dumps(out), flush=True)


def others() -> float:
    """Return the processor time of finished child processes, in seconds."""
    times = os.times()
    return times.children_user + times.children_system


def timed(flags: Sequence[str]) -> tuple[float, float]:
    """Run the command in a new process; return wall-clock and processor time in seconds."""
    # Users have neither a single thread nor uncompiled modules.
    without = (*ONE_THREAD, "PYTHONDONTWRITEBYTECODE")
    environment = {name: value for name, value in os.environ.items() if name not in without}
    began, before = time.perf_counter(), others()
    subprocess.run(
        [sys.executable, "-m", "kdbench", *flags],
        check=True,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - began, others() - before


def clocked(seconds: dict[str, float], what: str, module: str, name: str) -> None:
    """Wrap a function to add up its processor time in this process."""
    owner: Any = importlib.import_module(module)
    *above, name = name.split(".")
    for part in above:
        owner = getattr(owner, part)
    function: Callable[..., Any] = getattr(owner, name)

    def inner(*args: Any, **more: Any) -> Any:
        start, counted = time.process_time(), sum(seconds.values())
        try:
            return function(*args, **more)
        finally:
            # Subtract the time of nested parts: the page waits for the plots.
            counted = sum(seconds.values()) - counted
            seconds[what] += time.process_time() - start - counted

    setattr(owner, name, inner)


def fill(folder: Path, count: int) -> int:
    """Write a grid of 19 methods, the student and 5 seeds, and its records; return their number."""
    from kdbench.grid import expand, parsing
    from kdbench.runs import records

    pairs = max(1, count // (SEEDS * (METHODS.count(",") + 2)))
    students = ", ".join(f"resnet32x4 -> r8w{width}" for width in range(1, pairs + 1))
    seeds = ", ".join(map(str, range(SEEDS)))
    grid = folder / "grid.yaml"
    grid.write_text(GRID.format(seeds=seeds, pairs=students, methods=METHODS))
    runs = expand.expand(parsing.load(grid)).runs
    for i, run in enumerate(runs):
        path = records.folder(folder / "runs", run.id)
        path.mkdir(parents=True)
        (path / "record.json").write_text(record(run.id, i).to_json())
    return len(runs)


def record(run_id: str, number: int) -> Record:
    """Make a record of realistic size."""
    draw = random.Random(number)
    accuracy = draw.gauss(75, 1)
    result = Result(
        epoch=240, steps=187440, train_loss=0.1, train_acc=98.1, test_loss=0.9, test_acc=accuracy,
        test_top5=93.2, best_acc=accuracy + 0.2, best_epoch=237, weights=f"{number:064x}",
        data="d" * 64, n_train=50000, n_test=10000, teacher_acc=79.4, teacher_weights="a" * 64,
    )  # fmt: skip
    cost = Cost(
        seconds=draw.uniform(3000, 4000), teacher_seconds=800.0, step_ms=12.0, params=1_233_540,
        params_deployed=1_233_540, params_extra=10_200_000, macs=177_000_000, peak_mb=2345.6,
    )  # fmt: skip
    packages = ("torch", "torchvision", "numpy", "scipy", "pandas", "scikit-learn", "submitit")
    environment = {
        "commit": "0" * 40,
        "dirty": False,
        "versions": {"python": "3.11.7", "kdbench": "0.1.0"} | dict.fromkeys(packages, "1.2.3"),
        "device": "cuda:0",
        "threads": 1,
        "cores": 64,
        "processor": "A processor with a name of usual length @ 2.0 GHz",
        "system": "Linux x86_64",
        "host": "node001",
        "start": "2026-01-01T00:00:00Z",
        "end": "2026-01-01T01:00:00Z",
    }
    return Record(run_id, "done", result=result, cost=cost, environment=environment)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--fill"]:
        print(fill(Path(sys.argv[2]), int(sys.argv[3])))
    else:
        main()
