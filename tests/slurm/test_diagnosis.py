"""A failed test shows what its cluster knew."""

import sys

import pytest

from tests.slurm import diagnosis
from tests.slurm.cluster import Cluster

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1800)]


def test_report_has_the_jobs_of_the_test_and_the_logs(cluster: Cluster) -> None:
    held = [cluster.sh("sbatch", "--parsable", "--hold", "--wrap=true") for _ in range(2)]
    report = dict(diagnosis.sections(cluster, frozenset(held[:1])))
    assert held[0] in report["squeue"]
    assert f"JobId={held[1]} " in report["jobs of this test, 1 of 1"]
    assert "REASON" in report["sinfo -R"]
    assert "Agent queue size" in report["sdiag"]
    assert f"JobId={held[1]} " in report["slurmctld, last 40 lines"]
    assert set(report) >= {f"slurmd-n{number}, last 40 lines" for number in range(1, 5)}


def test_report_does_not_wait_for_a_daemon_that_hangs(cluster: Cluster) -> None:
    wait = [sys.executable, "-c", "import time; time.sleep(600)"]
    assert "timed out after 0.2 seconds" in diagnosis.ask(cluster, *wait, seconds=0.2)
    assert "No such file" in diagnosis.ask(cluster, "kdbench-no-such-program")
