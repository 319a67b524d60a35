"""A user's grid on a real Slurm without faults of the cluster."""

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.processes import DEADLINE
from tests.slurm.site import Site, killed_at_exit

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1800)]
RAISES = '''"""Raises, from nowhere."""

from kdbench.method import Method


class raises(Method):
    """Raises in its first step."""

    family = "logits"

    def loss(self, s, t, batch):
        raise RuntimeError("as it was written")
'''


def test_teachers_dependencies_and_arrays(cluster: Cluster, tmp_path: Path) -> None:
    site = Site(tmp_path, cluster, pairs=["r8w4 -> r8w3", "v5w4 -> r8w3"])
    output = site.call("run")
    assert site.results() == site.undisturbed()
    assert "runs submitted" in output
    assert (tmp_path / "results" / "tiny" / "leaderboard.md").exists()
    made = site.submissions()
    assert Counter(i for s in made for e in s["elements"] for c in e for i in c) == Counter(
        run.id for run in site.expanded()
    )
    environments = [record.environment for record in site.records().values()]
    (snapshot,) = {Path(s["code"]).name for s in made}
    assert all(e["snapshot"].startswith(snapshot) for e in environments)
    assert site.call("run").startswith("tiny: 16 runs, 16 recorded, 0 to train")
    assert len(site.submissions()) == len(made)


def test_detach_status_cancel_and_resume(cluster: Cluster, tmp_path: Path) -> None:
    site = Site(tmp_path, cluster, protocol={"preset": "demo", "epochs": 60})
    output = site.call("run", "--detach")
    assert "9 runs submitted to Slurm, 9 without a record" in output
    made = len(site.submissions())
    site.wait("training", lambda: "running" in site.call("status"))
    assert "queued" in site.call("status")
    assert len(site.submissions()) == made
    assert "jobs cancelled" in site.call("cancel")
    site.wait("the end of all jobs", lambda: not cluster.sh("squeue", "-h"))
    assert len(site.records()) < 9
    site.call("run")
    assert site.results() == site.undisturbed()


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_leaves_jobs_alone(cluster: Cluster, tmp_path: Path) -> None:
    site = Site(tmp_path, cluster, protocol={"preset": "demo", "epochs": 60})
    with killed_at_exit(site.start()) as first:
        site.training()
        first.send_signal(signal.SIGINT)
        assert first.wait(DEADLINE) == 130
    assert "jobs on Slurm continue" in site.output
    made = len(site.submissions())
    assert cluster.sh("squeue", "-h")
    site.call("run")
    assert len(site.submissions()) == made
    assert site.results() == site.undisturbed()


def test_two_runners_at_once(cluster: Cluster, tmp_path: Path) -> None:
    site = Site(tmp_path, cluster, protocol={"preset": "demo", "epochs": 30})
    with killed_at_exit(site.start()) as first, killed_at_exit(site.start()) as second:
        site.training()
        site.finish(first)
        site.finish(second)
    ids = Counter(i for s in site.submissions() for e in s["elements"] for c in e for i in c)
    assert ids == Counter(run.id for run in site.expanded())
    assert site.results() == site.undisturbed()


def test_next_runner_continues_after_a_killed_one(cluster: Cluster, tmp_path: Path) -> None:
    site = Site(tmp_path, cluster, protocol={"preset": "demo", "epochs": 60})
    with killed_at_exit(site.start()) as first:
        site.training()
        os.kill(first.pid, signal.SIGKILL)
    made = len(site.submissions())
    site.call("run")
    assert len(site.submissions()) == made
    assert site.results() == site.undisturbed()


def test_queued_jobs_run_the_code_that_was_submitted(cluster: Cluster, tmp_path: Path) -> None:
    plugin = tmp_path / "raises.py"
    plugin.write_text(RAISES)
    site = Site(tmp_path, cluster, methods=["kd", str(plugin)], seeds=[0])
    cluster.sh("scontrol", "update", "nodename=n[1-4]", "state=drain", "reason=test")
    site.call("run", "--detach")
    before = [run.id for run in site.expanded()]
    plugin.write_text(RAISES.replace("as it was written", "as it was edited later"))
    assert [run.id for run in site.expanded()] != before
    plugin.write_text(RAISES)
    for node in range(1, 5):
        cluster.sh("scontrol", "update", f"nodename=n{node}", "state=resume")
    plugin.write_text(RAISES.replace("as it was written", "as it was edited later"))
    site.wait("the end of all jobs", lambda: not cluster.sh("squeue", "-h"))
    plugin.write_text(RAISES)
    (failed,) = (record for record in site.records().values() if record.status == "failed")
    assert failed.reason == "RuntimeError: as it was written"
    assert "as it was written" in failed.traceback


def test_raising_plugin_is_recorded_and_not_repeated(cluster: Cluster, tmp_path: Path) -> None:
    plugin = tmp_path / "raises.py"
    plugin.write_text(RAISES)
    site = Site(tmp_path, cluster, methods=["kd", str(plugin)])
    output = site.call("run", code=1)
    assert "2 runs failed" in output
    statuses = Counter(record.status for record in site.records().values())
    assert statuses == {"done": 5, "failed": 2}
    ids = Counter(i for s in site.submissions() for e in s["elements"] for c in e for i in c)
    assert max(ids.values()) == 1


def test_missing_data_is_reported_in_the_records(cluster: Cluster, tmp_path: Path) -> None:
    where = {"name": "imagefolder", "root": str(tmp_path / "nowhere"), "size": 8}
    site = Site(tmp_path, cluster, slurm={"retries": 1}, dataset=where, methods=[], seeds=[0])
    output = site.call("run", code=1)
    assert "nowhere" in output
    assert {record.status for record in site.records().values()} == {"failed"}
    assert all("nowhere" in record.reason for record in site.records().values())


@pytest.mark.parametrize(
    ("slurm", "line"),
    [
        ({"partition": "maain"}, "executor.slurm.partition: maain"),
        ({"cpus": 64}, "executor.slurm.cpus: 64 for one node"),
        ({"gpus": 3}, "executor.slurm.gpus: 3 for one node"),
        ({"nodes": 9}, "would wait forever: PartitionConfig"),
        ({"constraint": "no-such-feature"}, "executor.slurm: sbatch: error: "),
    ],
)
def test_impossible_request_is_reported_in_one_line(
    cluster: Cluster, tmp_path: Path, slurm: dict[str, object], line: str
) -> None:
    site = Site(tmp_path, cluster, slurm=slurm, methods=[], seeds=[0])
    output = site.call("run", code=2)
    assert line in output
    assert "Traceback" not in output
    site.wait("an empty queue", lambda: not cluster.sh("squeue", "-h"))


def test_gpu_job_is_bound_to_its_gpu(cluster: Cluster, tmp_path: Path) -> None:
    """Each job uses the GPU that Slurm chose; cohorts that share a GPU see the same GPU."""
    shows = tmp_path / "raises.py"
    gpu = """f"gpu {__import__('os').environ['CUDA_VISIBLE_DEVICES']}\""""
    shows.write_text(RAISES.replace('"as it was written"', gpu))
    site = Site(
        tmp_path, cluster,
        slurm={"gpus": 1, "jobs_per_gpu": 2, "cpus": 1, "sbatch": {"nodelist": "n1"}},
        executor={"cohort": 1}, methods=[str(shows)], seeds=[0, 1, 2, 3],
    )  # fmt: skip
    site.call("run", code=1)
    gpus = Counter(r.reason for r in site.records().values() if r.status == "failed")
    # Two jobs at once on a node, with a GPU each, which their two cohorts share.
    assert gpus == {"RuntimeError: gpu 0": 2, "RuntimeError: gpu 1": 2}


@pytest.mark.slow
def test_array_of_two_hundred_jobs(cluster: Cluster, tmp_path: Path) -> None:
    site = Site(
        tmp_path, cluster, slurm={"parallel": 6, "memory": "1 GB", "poll_seconds": 5.0},
        executor={"cohort": 1}, seeds=list(range(200)), methods=[],
        protocol={"preset": "demo", "epochs": 1},
    )  # fmt: skip
    with killed_at_exit(site.start()) as runner:
        site.finish(runner, 1500)
    assert len(site.records()) == 201
    assert {record.status for record in site.records().values()} == {"done"}
    assert max(len(s["elements"]) for s in site.submissions()) == 200
