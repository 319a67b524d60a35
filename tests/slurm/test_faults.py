"""Faults of a cluster: no run is lost or trained twice, and results are bit-identical."""

import os
import signal
import time
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pytest

from kdbench.runs import attempts
from tests.slurm.cluster import Cluster
from tests.slurm.site import Site, killed_at_exit

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1800)]
LONG = {"preset": "demo", "epochs": 60}


def lines(site: Site) -> str:
    """Return the attempts of all runs."""
    return "\n".join(line for run in site.expanded() for line in attempts.read(site.runs, run.id))


def running(cluster: Cluster) -> list[str]:
    """Return the ids of running jobs; a signal to a waiting job would be repeated for minutes."""
    return cluster.sh("squeue", "-h", "-r", "-t", "R", "-o", "%A").split()


def started(cluster: Cluster, jobs: Iterable[str]) -> bool:
    """Check whether all of the jobs are running."""
    return set(jobs) <= set(running(cluster))


def tries(site: Site) -> Counter[str]:
    """Count how often each run was submitted."""
    return Counter(i for s in site.submissions() for e in s["elements"] for c in e for i in c)


def test_usr2_checkpoints_and_is_requeued(cluster: Cluster, tmp_path: Path) -> None:
    """Time limits and preemption send USR2."""
    site = Site(tmp_path, cluster, protocol=LONG)
    with killed_at_exit(site.start()) as runner:
        site.training()
        time.sleep(1)
        cluster.sh("scancel", "--signal=USR2", *running(cluster))
        site.wait("a requeue", lambda: "BeginTime" in cluster.sh("squeue", "-h", "-o", "%r"))
        site.finish(runner)
    assert site.results() == site.undisturbed()
    assert "stopped by USR2 at train epoch" in lines(site)
    assert max(tries(site).values()) == 1  # requeued by Slurm, not by the runner
    resumed = [r for r in site.records().values() if any("resumed" in a for a in r.attempts)]
    assert resumed


@pytest.mark.slow
def test_time_limit_is_survived(cluster: Cluster, tmp_path: Path) -> None:
    """The limit is one minute, the shortest; Slurm checks it every half minute."""
    site = Site(
        tmp_path, cluster, slurm={"hours": 1 / 60, "signal_seconds": 40}, seeds=[0], methods=["kd"],
        protocol={"preset": "demo", "epochs": 900},
    )  # fmt: skip
    with killed_at_exit(site.start()) as runner:
        site.finish(runner, 900)
    assert "stopped by USR2" in lines(site)
    assert site.results() == site.undisturbed()


def test_runs_of_a_killed_worker_are_submitted_again(cluster: Cluster, tmp_path: Path) -> None:
    site = Site(tmp_path, cluster, protocol=LONG)
    with killed_at_exit(site.start()) as runner:
        os.kill(site.training()[0], signal.SIGKILL)
        site.finish(runner)
    assert site.results() == site.undisturbed()
    assert "FAILED, exit code" in lines(site)
    assert max(tries(site).values()) == 2


def test_jobs_of_a_lost_node_resume(cluster: Cluster, tmp_path: Path) -> None:
    """Slurm requeues the jobs itself; meanwhile sacct reports NODE_FAIL, which is not final."""
    site = Site(tmp_path, cluster, protocol=LONG)
    with killed_at_exit(site.start()) as runner:
        site.training()
        for node in cluster.sh("squeue", "-h", "-t", "R", "-o", "%N").split():
            cluster.crash(node, noticed=True)
        time.sleep(5)
        cluster.heal()
        site.finish(runner)
    assert site.results() == site.undisturbed()


def test_cancelled_elements_are_submitted_again(cluster: Cluster, tmp_path: Path) -> None:
    site = Site(
        tmp_path,
        cluster,
        protocol=LONG,
        slurm={"parallel": 1},
        executor={"cohort": 1},
        seeds=[0, 1],
    )
    with killed_at_exit(site.start()) as runner:
        site.training()
        pending = cluster.sh("squeue", "-h", "-r", "-t", "PD", "-o", "%F_%K").split()
        cluster.sh("scancel", next(job for job in pending if "N/A" not in job))
        time.sleep(3)
        cluster.sh("scancel", *site.jobs())
        site.finish(runner)
    assert site.results() == site.undisturbed()


def test_preemption_with_and_without_a_requeue(cluster: Cluster, tmp_path: Path) -> None:
    """Preempted jobs are requeued in one partition, and cancelled in the other."""
    for number, partition in enumerate(("low", "cancelling")):
        folder = tmp_path / partition
        folder.mkdir()
        site = Site(
            folder, cluster, protocol=LONG, slurm={"partition": partition}, seeds=[number],
            methods=["kd"],
        )  # fmt: skip
        with killed_at_exit(site.start()) as runner:
            site.training()
            preempting = [
                cluster.sh("sbatch", "--parsable", "-p", "main", "-w", f"n{k}", "--exclusive",
                           "-o", "/dev/null", "--wrap=sleep 600")
                for k in range(1, 5)
            ]  # fmt: skip
            site.wait("the preemption", partial(started, cluster, preempting))
            cluster.sh("scancel", *preempting)
            site.finish(runner)
        assert site.results() == site.undisturbed()


def test_outages_of_daemons_are_survived(cluster: Cluster, tmp_path: Path) -> None:
    site = Site(tmp_path, cluster, protocol=LONG)
    with killed_at_exit(site.start()) as runner:
        site.training()
        cluster.kill("slurmctld")
        cluster.kill("slurmdbd")
        time.sleep(15)
        assert runner.poll() is None
        cluster.heal()
        cluster.kill("slurmdbd")
        site.finish(runner)
    assert site.results() == site.undisturbed()
    assert "Slurm does not answer, jobs continue" in site.output


def test_run_on_two_ranks_resumes_after_the_death_of_one(cluster: Cluster, tmp_path: Path) -> None:
    """Two nodes train a run; when one rank dies, the job ends at once and resumes later."""
    site = Site(
        tmp_path, cluster, slurm={"nodes": 2}, executor={"ranks": 2}, protocol=LONG, seeds=[0],
        methods=["semckd"],
    )  # fmt: skip
    with killed_at_exit(site.start()) as runner:
        os.kill(site.training()[0], signal.SIGKILL)
        site.finish(runner)
    ranks = [record.environment["ranks"] for record in site.records().values()]
    assert ranks == [2] * len(site.expanded())
    alone = site.undisturbed()
    for run_id, (status, result) in site.results().items():
        other = alone[run_id][1]
        assert status == "done"
        assert (result.data, result.steps) == (other.data, other.steps)
