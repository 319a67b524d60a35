"""A failed test shows what its cluster knew."""

import sys

import pytest

from tests.slurm import diagnosis
from tests.slurm.cluster import Cluster

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1800)]


def test_report_has_the_jobs_of_the_test_and_the_logs(cluster: Cluster) -> None:
    submit = ("sbatch", "--parsable", "--hold", "--wrap=true")
    before = cluster.sh(*submit)
    earlier = frozenset(diagnosis.jobs(cluster))  # slurmctld also remembers those of other tests
    assert before in earlier
    job = cluster.sh(*submit)
    report = dict(diagnosis.sections(cluster, earlier))
    assert before in report["squeue"] and job in report["squeue"]
    assert f"JobId={job} " in report["jobs of this test, 1 of 1"]
    assert "REASON" in report["sinfo -R"]
    assert "Agent queue size" in report["sdiag"]
    assert f"JobId={job} " in report["slurmctld, last 40 lines"]
    assert set(report) >= {f"slurmd-n{number}, last 40 lines" for number in range(1, 5)}


def test_report_does_not_wait_for_a_daemon_that_hangs(cluster: Cluster) -> None:
    wait = [sys.executable, "-c", "import time; time.sleep(600)"]
    assert "timed out after 0.2 seconds" in diagnosis.ask(cluster, *wait, seconds=0.2)
    assert "No such file" in diagnosis.ask(cluster, "kdbench-no-such-program")
