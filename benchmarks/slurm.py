"""The load of a large grid: calls of Slurm's commands per minute, and CPU time of the runner.

A fake scheduler answers at once, on a simulated clock, so days take seconds. The code that submits
and watches is the same as on a cluster. Prints a JSON object per line: what, ratio, n, machine.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from fake_slurm import Clock, FakeSlurm

from kdbench.execution import work
from kdbench.execution.slurm import runner, submit
from kdbench.execution.slurm.runner import SlurmRunner
from kdbench.grid.grid import Executor
from kdbench.grid.resources import Slurm
from kdbench.grid.run import Run
from kdbench.grid.settings import Dataset, Training


def grid(n: int) -> list[Run]:
    """Return ``n`` small runs without teachers."""
    run = Run(
        student="r8w3", teacher=None, dataset=Dataset(name="digits"),
        training=Training(epochs=1, batch_size=16, lr=0.1), gamma=1.0, alpha=0.0,
        temperature=4.0, terms=(), seed=0,
    )  # fmt: skip
    return [run.with_seed(seed) for seed in range(n)]


def measure(n: int, parallel: int, minutes: float) -> dict[str, float]:
    """Submit and watch ``n`` runs, of ``minutes`` minutes each."""
    fake = FakeSlurm(Clock(), seconds=60 * minutes, slots=parallel)
    runner.time = SimpleNamespace(  # type: ignore[assignment]
        monotonic=fake.clock.monotonic, sleep=fake.clock.sleep
    )
    submit._sbatch = fake.sbatch
    with tempfile.TemporaryDirectory() as folder:
        runs = grid(n)
        executor = Executor(kind="slurm", cohort=1, slurm=Slurm(parallel=parallel))
        submitter = SlurmRunner(
            runs, "bench", Path(folder), Path(folder), executor, fake.scheduler()
        )
        start, cpu_start = fake.clock.now, time.process_time()
        for _ in submitter.events():
            pass
        cpu_seconds = time.process_time() - cpu_start
        assert not work.missing(runs, Path(folder))
    simulated_minutes = (fake.clock.now - start) / 60
    calls = submitter.scheduler.calls
    return {
        "calls_per_minute": calls.total() / simulated_minutes,
        "sbatch": calls["sbatch"],
        "calls": calls.total(),
        "minutes": simulated_minutes,
        "runner_ms_per_run": 1000 * cpu_seconds / n,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--parallel", type=int, default=256)
    parser.add_argument("--minutes", type=float, default=10.0, help="duration of a run")
    args = parser.parse_args()
    base = None
    for n in args.runs:
        figures = measure(n, args.parallel, args.minutes)
        base = base or figures
        rounded = {key: round(value, 2) for key, value in figures.items()}
        ratio = figures["runner_ms_per_run"] / base["runner_ms_per_run"]
        what = f"{n} runs on a fake Slurm; ratio: runner's time per run to that of {args.runs[0]}"
        line = {
            "what": what,
            "ratio": round(ratio, 2),
            "n": 1,
            "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        }
        print(json.dumps(line | rounded))


if __name__ == "__main__":
    main()
