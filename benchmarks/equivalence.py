"""Accuracy of one grid computed in three ways: plain loop, fp32, bf16.

The engine trains the grid's teacher in fp32. Each way then trains all students of this teacher on
the same images, with its own initial weights, batches and augmentations. The difference of a way
from the plain loop is printed with its 95 % interval over the seeds (Welch). The ways agree if the
interval contains 0; differences smaller than its width may go unnoticed. The last line is the same
for all rows together, in units of the rows' standard errors.

python -m benchmarks.equivalence [--data FOLDER] [--runs FOLDER] [--set KEY=VALUE ...]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from scipy import stats

from benchmarks.plain.loop import Run as Plain
from kdbench.data.dataset import load
from kdbench.execution.work import workers
from kdbench.grid.expand import expand
from kdbench.grid.parsing import load as load_grid
from kdbench.grid.run import Run
from kdbench.models import zoo
from kdbench.runs import records
from kdbench.training import teacher as teachers
from kdbench.training.schedule import learning_rate

GRID = Path("experiments/equivalence.yaml")
BF16 = ["protocol.precision=bf16"]

Accuracies = dict[tuple[str, int], float]
"""(row, seed) -> test accuracy in percent after the last epoch."""


def students(overrides: list[str]) -> dict[tuple[str, int], Run]:
    """Return every student's run by row and seed."""
    expansion = expand(load_grid(GRID, overrides))
    teacher_ids = {run.teacher.run for run in expansion.runs if run.teacher}
    return {(run.method, run.seed): run for run in expansion.runs if run.id not in teacher_ids}


def by_engine(overrides: list[str], runs: Path, data: Path) -> Accuracies:
    """Train the grid as users do, and read the records."""
    options = [text for value in overrides for text in ("--set", value)]
    folders = ["--runs", str(runs), "--data", str(data), "--results", str(runs / "results")]
    command = [sys.executable, "-m", "kdbench", "run", "--grid", str(GRID), *folders, *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    rows = students(overrides)
    loaded = records.load(runs, (run.id for run in rows.values()))
    accuracies = {}
    for key, run in rows.items():
        result = loaded[run.id].result
        if result is None or result.test_acc is None:
            raise SystemExit(f"{key}: {loaded[run.id].status}")
        accuracies[key] = result.test_acc
    return accuracies


def by_plain_loop(key: tuple[str, int], overrides: list[str], runs: Path, data: Path) -> float:
    """Train one row and seed with the plain loop."""
    torch.set_num_threads(1)
    run = students(overrides)[key]
    training, images = run.training, load(run.dataset, data)
    sizes = {"num_classes": images.num_classes, "in_channels": images.channels}
    teacher = None
    if run.teacher:
        teacher = teachers.load(runs, run.teacher, **sizes, device=torch.device("cpu")).network
    torch.manual_seed(run.seed)
    plain = Plain(
        run.terms[0].method if run.terms else "kd",
        zoo.create(run.student, **sizes),
        teacher,
        images,
        batch=training.batch_size,
        rate=training.lr,
        nesterov=training.nesterov,
        weight=run.terms[0].beta if run.terms else None,
        pad=training.crop_pad,
        flip=training.flip,
    )
    for epoch in range(1, training.epochs + 1):
        plain.epoch(partial(learning_rate, training, epoch))
    return plain.accuracy()


def compare(plain: Accuracies, other: Accuracies, way: str) -> list[dict[str, Any]]:
    """Return a line per row, and one for all rows."""
    lines, scores = [], []
    for row in dict.fromkeys(row for row, _ in plain):
        a = [acc for (r, _), acc in plain.items() if r == row]
        b = [acc for (r, _), acc in other.items() if r == row]
        gap = stats.ttest_ind(b, a, equal_var=False)
        low, high = gap.confidence_interval(0.95)
        difference = statistics.mean(b) - statistics.mean(a)
        error = (statistics.variance(a) / len(a) + statistics.variance(b) / len(b)) ** 0.5
        scores.append(difference / error)
        lines.append(
            {
                "what": f"{way} - plain loop, {row}, points",
                "plain": round(statistics.mean(a), 2),
                way: round(statistics.mean(b), 2),
                "sd": [round(statistics.stdev(a), 2), round(statistics.stdev(b), 2)],
                "difference": round(difference, 2),
                "interval": [round(low, 2), round(high, 2)],
                "agrees": bool(low <= 0 <= high),
                "n": len(a),
            }
        )
    total = sum(scores) / len(scores) ** 0.5
    overall = {"what": f"{way} - plain loop, all rows, standard errors", "z": round(total, 2)}
    # Approximate: rows of one seed share a teacher, so |z| is somewhat too large.
    return [*lines, overall | {"agrees": abs(total) < 1.96, "rows": len(scores)}]


def main() -> None:
    """Train, compare, and print a JSON line per row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--runs", type=Path, help="Folder of runs (default: a temporary folder).")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--ways", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    options = parser.parse_args()
    grid = load_grid(GRID, options.set)
    with tempfile.TemporaryDirectory() as scratch:
        runs = options.runs or Path(scratch)
        engine = {"fp32": by_engine(options.set, runs, options.data)}
        train = partial(by_plain_loop, overrides=options.set, runs=runs, data=options.data)
        with ProcessPoolExecutor(workers(grid.executor), mp_context=get_context("spawn")) as pool:
            plain = dict(zip(engine["fp32"], pool.map(train, engine["fp32"]), strict=True))
        for way in options.ways:
            if way == "bf16":
                engine[way] = by_engine([*options.set, *BF16], runs, options.data)
            for line in compare(plain, engine[way], way):
                print(json.dumps(line | {"torch": torch.__version__}), flush=True)


if __name__ == "__main__":
    main()
