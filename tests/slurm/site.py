"""A user's grid on the cluster: the grid file, the folder of runs and the commands."""

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from kdbench.grid import expand, parsing
from kdbench.grid.run import Run
from kdbench.runs import records
from kdbench.runs.records import Record
from tests.slurm.cluster import Cluster
from tests.slurm.processes import DEADLINE

ROOT = Path(__file__).resolve().parents[2]
GRID: dict[str, Any] = {
    "name": "tiny",
    "title": "Tiny",
    "dataset": {"name": "digits", "per_class": 7},
    "protocol": {"preset": "demo", "epochs": 8},
    "seeds": [0, 1],
    "pairs": ["r8w4 -> r8w3"],
    "methods": ["kd", "at", "semckd"],
}
UNDISTURBED = Path(tempfile.mkdtemp(prefix="kdbench-undisturbed-"))
"""Runs without faults, trained once and shared by all tests of a session."""
atexit.register(shutil.rmtree, UNDISTURBED, ignore_errors=True)
TRAINING = 600.0
"""Seconds that a command may take to train a grid; a wait ends early."""
SLURM: dict[str, Any] = {"poll_seconds": 1.0, "hours": 1, "memory": "2 GB", "signal_seconds": 20}


class Site:
    """A user's folder.

    Args:
        folder: an empty folder.
        slurm: replaces keys of ``SLURM``.
        executor: replaces keys of the grid's executor.
        grid: replaces keys of ``GRID``.
    """

    def __init__(
        self,
        folder: Path,
        cluster: Cluster,
        slurm: dict[str, Any] | None = None,
        executor: dict[str, Any] | None = None,
        **grid: Any,
    ) -> None:
        self.folder, self.cluster = folder, cluster
        self.runs = folder / "runs"
        how = {"kind": "slurm", "cohort": 3, "checkpoint_seconds": 0.5, "device": "cpu"}
        how |= (executor or {}) | {"slurm": SLURM | (slurm or {})}
        self.file = folder / "grid.yaml"
        self.file.write_text(yaml.safe_dump(GRID | grid | {"executor": how}))

    def command(self, verb: str, *more: str, runs: Path | None = None) -> list[str]:
        where = ["--runs", str(runs or self.runs), "--results", str(self.folder / "results")]
        return [sys.executable, "-m", "kdbench", verb, "--grid", str(self.file), *where, *more]

    def env(self) -> dict[str, str]:
        return {
            **os.environ,
            **self.cluster.env,
            "PYTHONPATH": str(ROOT),
            "KDBENCH_STALE_SECONDS": "20",
        }

    def start(self, verb: str = "run", *more: str) -> subprocess.Popen[str]:
        """Start a command that runs while the test causes faults."""
        with (self.folder / "out.txt").open("a") as out:
            return subprocess.Popen(
                self.command(verb, *more),
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
                env=self.env(),
                cwd=self.folder,
            )

    def call(self, verb: str, *more: str, code: int = 0, runs: Path | None = None) -> str:
        """Run a command to its end and return its output."""
        done = subprocess.run(
            self.command(verb, *more, runs=runs),
            capture_output=True,
            text=True,
            env=self.env(),
            cwd=self.folder,
            timeout=TRAINING,
            check=False,
        )
        assert done.returncode == code, f"{done.stdout}\n{done.stderr}\n{self.logs()}"
        return done.stdout + done.stderr

    @property
    def output(self) -> str:
        """Output of all started commands so far."""
        file = self.folder / "out.txt"
        return file.read_text() if file.exists() else ""

    def logs(self) -> str:
        """Return the ends of the jobs' logs, for the messages of failing tests."""
        paths = sorted(self.runs.glob(".slurm/*/log/*.err"))[-4:]
        return "\n".join(f"{p.name}: {p.read_text()[-800:]}" for p in paths)

    def expanded(self) -> list[Run]:
        return list(expand.expand(parsing.load(self.file)).runs)

    def records(self) -> dict[str, Record]:
        return records.load(self.runs, (run.id for run in self.expanded()))

    def submissions(self) -> list[dict[str, Any]]:
        """Return all submissions, oldest first."""
        paths = sorted(self.runs.glob(".slurm/*/submission.json"), key=lambda p: p.stat().st_mtime)
        return [json.loads(path.read_bytes()) for path in paths]

    def jobs(self) -> list[str]:
        """Return Slurm's ids of the arrays."""
        paths = sorted(self.runs.glob(".slurm/*/job.json"), key=lambda p: p.stat().st_mtime)
        return [json.loads(path.read_bytes())["job"] for path in paths]

    def undisturbed(self) -> dict[str, Any]:
        """Return the results of the same grid, trained here in one process without faults."""
        if any(result is None for result in results(UNDISTURBED, self.expanded()).values()):
            self.call("run", "--executor", "debug", runs=UNDISTURBED)
        return results(UNDISTURBED, self.expanded())

    def results(self) -> dict[str, Any]:
        return results(self.runs, self.expanded())

    def processes(self) -> list[int]:
        """Return the numbers of the processes that train, from their heartbeats."""
        pids = set()
        for path in self.runs.glob("*/progress.json"):
            try:
                beat = json.loads(path.read_bytes())
            except (OSError, ValueError):
                continue
            if time.time() - beat["at"] < 5:
                pids.add(int(beat["pid"]))
        return sorted(pids)

    def wait(self, what: str, condition: Any, seconds: float = DEADLINE) -> Any:
        """Wait for a condition; if it never holds, fail with the output of runner and jobs."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := condition():
                return value
            time.sleep(0.2)
        raise AssertionError(f"{what}: not within {seconds:.0f} s\n{self.output}\n{self.logs()}")

    def training(self) -> list[int]:
        """Wait until processes train, and return their numbers."""
        pids: list[int] = self.wait("training", self.processes)
        return pids

    def finish(self, process: subprocess.Popen[str], seconds: float = TRAINING) -> None:
        """Wait for the end of a command, while requeued jobs start without delay."""
        end = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < end:
            self.cluster.release_all()
            time.sleep(1.0)
        assert process.poll() == 0, f"{process.poll()}\n{self.output}\n{self.logs()}"


def results(runs: Path, expanded: Sequence[Run]) -> dict[str, Any]:
    """Return each run's status and result, which no fault may change; None without a record."""
    written = records.load(runs, (run.id for run in expanded))
    outcomes = {run_id: (record.status, record.result) for run_id, record in written.items()}
    return {run.id: outcomes.get(run.id) for run in expanded}


@contextmanager
def killed_at_exit(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Kill a process at the end of the context."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
