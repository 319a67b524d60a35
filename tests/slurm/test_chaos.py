"""Two minutes of random faults, after which every run has one record, with unchanged results.

``KDBENCH_CHAOS_SEEDS=1,2,3 pytest -s tests/slurm/test_chaos.py`` repeats them with these seeds.
"""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.site import Site, killed_at_exit

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1800)]
SECONDS = 120.0
SEEDS = [int(seed) for seed in os.environ.get("KDBENCH_CHAOS_SEEDS", "20261122").split(",")]


class Chaos:
    """Named faults, drawn at random from a seed."""

    def __init__(self, cluster: Cluster, site: Site, seed: int) -> None:
        self.cluster, self.site, self.draw = cluster, site, random.Random(seed)
        self.done: list[str] = []

    def fault(self) -> None:
        """Cause a fault, unless there is nothing to disturb."""
        faults: list[Callable[[], str]] = [
            self.kill_a_worker, self.kill_a_worker, self.stop_a_worker, self.signal_a_job,
            self.cancel_an_element, self.requeue_a_job, self.lose_a_node, self.kill_slurmctld,
            self.kill_slurmdbd, self.kill_the_runner,
        ]  # fmt: skip
        self.done.append(self.draw.choice(faults)())

    def _job(self, state: str) -> str:
        listed = self.cluster.sh("squeue", "-h", "-r", "-t", state, "-o", "%A", check=False).split()
        return self.draw.choice(sorted(listed)) if listed else ""

    def kill_a_worker(self) -> str:
        pids = self.site.processes()
        if pids:
            try:
                os.kill(self.draw.choice(pids), signal.SIGKILL)
            except ProcessLookupError:
                return "no worker to kill"
        return "killed a worker" if pids else "no worker to kill"

    def stop_a_worker(self) -> str:
        """Stop a worker for five seconds."""
        pids = self.site.processes()
        if not pids:
            return "no worker to stop"
        pid = self.draw.choice(pids)
        try:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(5)
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            return "no worker to stop"
        return "stopped a worker for a while"

    def signal_a_job(self) -> str:
        job = self._job("R")
        if job:
            # scancel asks again and again while the job is being requeued.
            self.cluster.sh("timeout", "20", "scancel", "--signal=USR2", job, check=False)
        return "sent USR2" if job else "nothing to signal"

    def cancel_an_element(self) -> str:
        job = self._job("R,PD")
        if job:
            self.cluster.sh("timeout", "20", "scancel", job, check=False)
        return "cancelled an element" if job else "nothing to cancel"

    def requeue_a_job(self) -> str:
        job = self._job("R")
        if job:
            self.cluster.sh("scontrol", "requeue", job, check=False)
        return "requeued a job" if job else "nothing to requeue"

    def lose_a_node(self) -> str:
        self.cluster.crash(f"n{self.draw.randint(1, 4)}", noticed=True)
        time.sleep(2)
        self.cluster.heal()
        return "lost a node"

    def kill_slurmctld(self) -> str:
        self.cluster.kill("slurmctld")
        time.sleep(self.draw.uniform(0, 5))
        self.cluster.heal()
        return "killed slurmctld"

    def kill_slurmdbd(self) -> str:
        self.cluster.kill("slurmdbd")
        time.sleep(self.draw.uniform(0, 5))
        self.cluster.heal()
        return "killed slurmdbd"

    def kill_the_runner(self) -> str:
        return "killed the runner"


@pytest.mark.parametrize("seed", SEEDS)
def test_no_run_is_lost_or_recorded_twice(cluster: Cluster, tmp_path: Path, seed: int) -> None:
    site = Site(
        tmp_path, cluster, seeds=[0, 1, 2], methods=["kd", "at", "semckd", "vid"],
        pairs=["r8w4 -> r8w3", "r8w4 -> v5w4"], protocol={"preset": "demo", "epochs": 60},
        slurm={"retries": 50},
    )  # fmt: skip
    chaos = Chaos(cluster, site, seed)
    records: dict[str, int] = {}
    runner = site.start()
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        time.sleep(chaos.draw.uniform(1, 6))
        chaos.fault()
        if chaos.done[-1] == "killed the runner" or runner.poll() is not None:
            runner.kill()
            runner.wait()
            runner = site.start()
        cluster.release_all()
        for path in site.runs.glob("*/record.json"):
            stamp = path.stat().st_mtime_ns
            assert records.setdefault(path.parent.name, stamp) == stamp, "a record was rewritten"
    cluster.heal()
    with killed_at_exit(runner):
        site.finish(runner)
    faults = [fault for fault in chaos.done if not fault.startswith("no")]
    expected = {run.id for run in site.expanded()}
    assert {path.parent.name for path in site.runs.glob("*/record.json")} == expected
    assert site.results() == site.undisturbed()
    summary = f"seed {seed}: {len(faults)} faults; {len(expected)} runs, lost 0, duplicated 0"
    (tmp_path / "summary.txt").write_text(summary)
    print(summary)  # noqa: T201 - the figure this test is for; shown by pytest -s
