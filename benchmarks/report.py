"""How long a report takes: synthetic records on disk, read and aggregated, on one core.

Seconds are processor time of this process.

python benchmarks/report.py [RECORDS ...]
"""

import json
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdbench import archive, latex, leaderboard, records
from kdbench.aggregate import aggregate
from kdbench.evidence import gather
from kdbench.grid import Grid, Pair, Report
from kdbench.records import Cost, Record, Result
from kdbench.run import Cell, Run, Teacher, Term
from kdbench.spec import Dataset, Protocol, Training

METHODS = ("kd", *(f"m{i}" for i in range(17)), "semckd")
SEEDS = tuple(range(5))
COUNTS = (10_000, 100_000)
TARGET = {100_000: 20.0}
"""Records -> seconds of processor time that a report may take."""


def main() -> None:
    """Print one JSON object a line."""
    for count in [int(text) for text in sys.argv[1:]] or COUNTS:
        measure(count)


def measure(count: int) -> None:
    """Write about ``count`` records, then time every step from the folder to the page."""
    grid, cells = table(count)
    runs = {run.id: run for cell in cells for run in cell.runs}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "runs"
        for i, run_id in enumerate(runs):
            path = records.folder(folder, run_id)
            path.mkdir(parents=True)
            (path / "record.json").write_text(record(run_id, i).to_json())
        seconds: dict[str, float] = {}

        @contextmanager
        def clock(what: str) -> Iterator[None]:
            # Of this process: others on the machine do not count.
            start = time.process_time()
            yield
            seconds[what] = time.process_time() - start

        # Fresh runs: ids are hashed as a report hashes them.
        grid, cells = table(count)
        with clock("ids"):
            for cell in cells:
                for run in cell.runs:
                    run.id  # noqa: B018
        with clock("load"):
            evidence = gather(grid, cells, folder)
        with clock("aggregate"):
            whole = aggregate(evidence)
        with clock("page"):
            leaderboard.markdown(whole)
        with clock("LaTeX"):
            latex.leaderboard(whole)
        with clock("archive"):
            archive.dump(evidence)
        with clock("write"):
            leaderboard.write(evidence, Path(name) / "results", whole)
    # ``write`` makes the page, the LaTeX and the archive itself.
    total = seconds["ids"] + seconds["load"] + seconds["aggregate"] + seconds["write"]
    machine = f"{platform.machine()}, {os.cpu_count()} cores, one used"
    for what, value in (*seconds.items(), ("report in all", total)):
        out = {"what": f"report: {what}", "seconds": round(value, 3), "n": len(runs)}
        if what == "report in all" and count in TARGET:
            out["ratio"] = round(value / TARGET[count], 3)
        print(json.dumps(out | {"machine": machine}), flush=True)


def table(count: int) -> tuple[Grid, list[Cell]]:
    """A grid of about ``count`` runs: 19 methods and the student, 5 seeds, many pairs."""
    pairs = max(1, count // (len(SEEDS) * (len(METHODS) + 1)))
    dataset, protocol = Dataset(name="cifar100"), Protocol(name="bench")
    grid = Grid(
        name="bench",
        title="Synthetic",
        dataset=dataset,
        protocol=protocol,
        seeds=SEEDS,
        pairs=tuple(Pair(teacher="teacher", student=f"student{i}") for i in range(pairs)),
        report=Report(ari_of="semckd"),
    )
    cells = []
    for pair in grid.pairs:
        training = protocol.training(pair.student)

        def make(
            method: str, seed: int, student: str, teacher: Run | None, training: Training = training
        ) -> Run:
            return Run(
                student, Teacher(teacher.student, teacher.id) if teacher else None, dataset,
                training, 1.0, 1.0 if teacher else 0.0, 4.0,
                (Term(method, 1.0),) if teacher else (), seed, method=method,
            )  # fmt: skip

        teacher = make("teacher", 0, pair.teacher, None)
        cells.append(Cell("teacher", pair.teacher, pair.student, (teacher,)))
        for method in ("student", *METHODS):
            source = None if method == "student" else teacher
            first = make(method, SEEDS[0], pair.student, source)
            runs = tuple(first.with_seed(seed) for seed in SEEDS)
            cells.append(Cell(method, pair.teacher, pair.student, runs))
    return grid, cells


def record(run_id: str, number: int) -> Record:
    """A record with as much in it as a real one."""
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
    main()
