"""The cluster that other tests rely on: it works, fails on request, and recovers."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import pytest
import submitit

from kdbench.files import write_atomically
from tests.slurm.cluster import Cluster
from tests.slurm.leftovers import end, sweep
from tests.slurm.packages import absent
from tests.slurm.processes import DEADLINE, Process, carrying, until

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1800)]
# A job cannot import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Count(submitit.helpers.Checkpointable):
    """Count ten numbers per second until an interrupt, and ``more`` numbers after it."""

    def __init__(self, path: Path, more: int) -> None:
        self.path, self.more = path, more

    def __call__(self) -> tuple[int, int]:
        started = count = int(self.path.read_text()) if self.path.exists() else 0
        while not started or count < started + self.more:
            time.sleep(0.1)
            count += 1
            # The test reads the file meanwhile, and a signal may arrive at any time.
            write_atomically(self.path, str(count))
        return started, count


def state(cluster: Cluster, job: str) -> str:
    """Return "STATE Reason" of a job; "" once squeue no longer lists it."""
    return cluster.sh("squeue", "-h", "-o", "%T %r", "-j", job)


def submit(cluster: Cluster, command: str, *options: str) -> str:
    log = f"--output={cluster.folder}/log/job-%j.out"
    return cluster.sh("sbatch", "--parsable", log, *options, f"--wrap={command}")


def output(cluster: Cluster, job: str) -> str:
    file = cluster.folder / "log" / f"job-{job}.out"
    return file.read_text() if file.exists() else ""


def content(file: Path) -> bytes:
    """Return a file's content; b"" while another process replaces the file."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""


def make_executor(folder: Path, **parameters: object) -> submitit.AutoExecutor:
    executor = submitit.AutoExecutor(folder=folder, cluster="slurm", slurm_max_num_timeout=3)
    executor.update_parameters(timeout_min=60, slurm_signal_delay_s=20, mem_gb=0.1, **parameters)
    return executor


def test_nodes_are_idle_and_named(cluster: Cluster) -> None:
    lines = cluster.sh("sinfo", "-h", "-N", "-p", "main", "-o", "%N %T %c %m %G").splitlines()
    assert lines == [f"n{k} idle 8 16000 gpu:2" for k in range(1, 5)]
    assert cluster.sh("sinfo", "-h", "-o", "%R").split() == ["main", "low", "cancelling"]
    assert "n1 n2 n3 n4" in Path("/etc/hosts").read_text()


def test_gpus_are_distinct(cluster: Cluster) -> None:
    """Two jobs on a node get different GPUs; a request for three of two GPUs is refused."""
    command = "printenv CUDA_VISIBLE_DEVICES; sleep 600"
    jobs = [submit(cluster, command, "--gpus-per-node=1", "-w", "n1") for _ in range(2)]
    until("two GPUs", lambda: all(output(cluster, job) for job in jobs))
    assert sorted(output(cluster, job).strip() for job in jobs) == ["0", "1"]
    with pytest.raises(RuntimeError, match="Requested node configuration is not available"):
        submit(cluster, "true", "--gpus-per-node=3")


def test_submitit_gets_results_and_states_from_sacct(cluster: Cluster, tmp_path: Path) -> None:
    job = make_executor(tmp_path).submit(sum, [1, 2])
    assert job.result() == 3
    query = ("sacct", "-n", "-X", "-P", "-o", "State", "-j", job.job_id)
    until("a row in sacct", lambda: cluster.sh(*query) == "COMPLETED")
    assert job.watcher.get_state(job.job_id, "force") == "COMPLETED"


def test_requeue_after_a_checkpoint_starts_when_released(cluster: Cluster, tmp_path: Path) -> None:
    """After USR2, which time limits and preemption send, submitit saves and requeues the job.

    The requeue happens early in a second, while the scheduler is idle, because a start in the same
    second would fail.
    """
    path = tmp_path / "count"
    job = make_executor(tmp_path).submit(Count(path, 30))
    until("a start", lambda: path.exists() and int(path.read_text()) >= 15)
    time.sleep(1.05 - time.time() % 1)
    job._interrupt(timeout=True)  # type: ignore[attr-defined]
    until("the requeue", lambda: state(cluster, job.job_id) == "PENDING BeginTime")
    assert cluster.release_all() == [job.job_id]
    started, count = job.result()
    assert started >= 15
    assert count == started + 30


def occupy(cluster: Cluster, command: str, *options: str) -> list[str]:
    """Start a job in ``low`` and one in ``cancelling``, which together need all nodes."""
    options = ("-N2", "--exclusive", *options)
    jobs = [submit(cluster, command, *options, "-p", part) for part in ("low", "cancelling")]
    until("two starts", lambda: all("ready" in output(cluster, job) for job in jobs))
    return jobs


def test_jobs_get_a_signal_before_their_preemption(cluster: Cluster) -> None:
    """At the start of the grace time, jobs get the signal that they requested instead of TERM."""
    command = "trap 'echo signalled; exit' USR2; echo ready; while :; do sleep 0.1; done"
    jobs = occupy(cluster, command, "--signal=B:USR2@60")
    submit(cluster, "sleep 600", "-N4", "--exclusive")
    until("two signals", lambda: all("signalled" in output(cluster, job) for job in jobs))


def test_preempted_jobs_are_requeued_or_cancelled(cluster: Cluster) -> None:
    requeued, cancelled = occupy(cluster, "echo ready; sleep 600")
    partitions = [f"partitionname={name}" for name in ("low", "cancelling")]
    try:
        for partition in partitions:
            cluster.sh("scontrol", "update", partition, "gracetime=0")
        submit(cluster, "sleep 600", "-N4", "--exclusive")
        until("the requeue", lambda: state(cluster, requeued) == "PENDING BeginTime")
        over = ("scontrol", "show", "job", cancelled)
        until("the cancellation", lambda: "JobState=PREEMPTED" in cluster.sh(*over))
    finally:
        for partition in partitions:
            cluster.sh("scontrol", "update", partition, "gracetime=20")


def test_crashed_node_loses_its_processes_and_is_revived(cluster: Cluster) -> None:
    job = submit(cluster, "sleep 600", "-w", "n3", "--requeue")
    until("the job's process", lambda: carrying([f"SLURM_JOB_ID={job}"], ["SLURMD_NODENAME"]))
    cluster.crash("n3", noticed=True)
    assert not carrying([f"SLURM_JOB_ID={job}"], ["SLURMD_NODENAME"])
    assert cluster.daemons.get("slurmd-n3") is None
    assert cluster.daemons.get("slurmd-n2") is not None
    until("the requeue", lambda: state(cluster, job).startswith("PENDING"))
    cluster.revive("n3")
    cluster.release(job)
    until("the second run", lambda: state(cluster, job).startswith("RUNNING"))


def test_release_waits_for_the_end_of_the_old_run(cluster: Cluster) -> None:
    """A late message of slurmctld to end the old run must not reach the new run."""
    job = submit(cluster, "while :; do srun sleep 0.1; done", "-w", "n2", "--requeue")
    until("the job's process", lambda: carrying([f"SLURM_JOB_ID={job}"], ["SLURMD_NODENAME"]))
    cluster.crash("n2", noticed=True)
    until("the requeue", lambda: state(cluster, job).startswith("PENDING"))
    cluster.revive("n2")
    # slurmd is to receive the message only after it resumes.
    cluster.pause("slurmd-n2")
    time.sleep(1.5)
    resumption = threading.Timer(1.5, cluster.resume, ["slurmd-n2"])
    resumption.start()
    cluster.release(job)
    resumption.join()
    until("the second run", lambda: state(cluster, job).startswith("RUNNING"))
    time.sleep(2)
    assert state(cluster, job).startswith("RUNNING")
    assert not cluster.crashes


def test_slurmctld_that_dies_by_itself_is_restarted(cluster: Cluster) -> None:
    """The crash is listed, unlike the end of a slurmctld that a test killed."""
    held = submit(cluster, "true", "--hold", "--job-name=survives")
    saved = cluster.folder / "state" / "job_state"
    until("the saved queue", lambda: b"survives" in content(saved))
    cluster.kill("slurmctld", "SEGV")
    until("its death", lambda: cluster.daemons.died("slurmctld") == "SIGSEGV")
    assert state(cluster, held) == "PENDING JobHeldUser"
    assert cluster.crashes == [f"slurmctld died by itself (SIGSEGV), see {cluster.folder / 'log'}"]
    cluster.crashes.clear()
    cluster.kill("slurmctld")
    assert not cluster.daemons.died("slurmctld")
    cluster.restart("slurmctld")
    assert not cluster.crashes


def test_queue_survives_a_killed_slurmctld(cluster: Cluster) -> None:
    held = submit(cluster, "true", "--hold", "--job-name=outlives")
    saved = cluster.folder / "state" / "job_state"
    until("the saved queue", lambda: b"outlives" in content(saved))
    cluster.kill("slurmctld")
    assert cluster.daemons.get("slurmctld") is None
    cluster.restart("slurmctld")
    assert state(cluster, held) == "PENDING JobHeldUser"


def test_sacct_fails_and_squeue_works_without_slurmdbd(cluster: Cluster) -> None:
    cluster.kill("slurmdbd")
    job = submit(cluster, "sleep 60")
    with pytest.raises(RuntimeError, match="Connection refused"):
        cluster.sh("sacct", "-X")
    assert state(cluster, job)
    cluster.restart("slurmdbd")
    until("the row", lambda: job in cluster.sh("sacct", "-n", "-X", "-o", "JobID"))


def test_paused_slurmctld_answers_after_resume(cluster: Cluster) -> None:
    cluster.pause("slurmctld")
    with subprocess.Popen(("squeue", "-h"), stdout=subprocess.PIPE) as squeue:
        with pytest.raises(subprocess.TimeoutExpired):
            squeue.wait(2)
        cluster.resume("slurmctld")
        assert squeue.wait(DEADLINE) == 0


@pytest.fixture
def folder() -> Iterator[Path]:
    """Create a folder with a short path, as Unix sockets require."""
    with tempfile.TemporaryDirectory(prefix="kdb2-", dir="/tmp") as name:
        yield Path(name)


def test_two_clusters_side_by_side(cluster: Cluster, folder: Path) -> None:
    """``end`` kills all processes of a second cluster and none of the first."""
    second = Cluster(folder, nodes=1, gpus=0, accounting=False, extra={"KillWait": "7"})
    with second:
        assert second.sh("srun", "printenv", "SLURMD_NODENAME") == "n1"
        assert "KillWait                = 7 sec" in second.sh("scontrol", "show", "config")
        submit(second, "sleep 600")
        conf = f"SLURM_CONF={second.env['SLURM_CONF']}"
        until("the job's process", lambda: carrying([conf], ["SLURM_JOB_ID"]))
        end(folder)
        assert not carrying([conf], ["KDBENCH_NODE", "SLURMD_NODENAME"])
        assert str(folder) not in Path("/etc/hosts").read_text()
    assert cluster.sh("srun", "printenv", "SLURMD_NODENAME") == "n1"


def test_sweep_ends_the_cluster_of_a_dead_session(cluster: Cluster, folder: Path) -> None:
    """The session is killed while a job runs; the cluster of a live session stays."""
    code = (
        "import os, pathlib, signal, sys\n"
        "from tests.slurm.cluster import Cluster\n"
        "cluster = Cluster(pathlib.Path(sys.argv[1]), nodes=1, gpus=0, accounting=False)\n"
        "cluster.up()\n"
        "cluster.sh('sbatch', '--output=/dev/null', '--wrap=sleep 600')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parents[2]
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (root, root / "tests" / "support"))),
    }
    session = subprocess.run([sys.executable, "-c", code, str(folder)], env=env, check=False)
    assert session.returncode == -signal.SIGKILL
    conf = f"SLURM_CONF={folder}/etc/slurm.conf"
    ours = [conf], ["KDBENCH_NODE", "SLURMD_NODENAME"]
    until("the job's process", lambda: carrying([conf], ["SLURM_JOB_ID"]))
    assert len(carrying(*ours)) > 4
    folder.with_name(folder.name + "-live").symlink_to(cluster.folder)
    sweep(folder.name + "*")
    folder.with_name(folder.name + "-live").unlink()
    assert not carrying(*ours)
    assert not folder.exists()
    assert str(folder) not in Path("/etc/hosts").read_text()
    assert cluster.daemons.get("slurmctld")
    folder.mkdir()


def test_folder_belongs_to_one_live_process(folder: Path) -> None:
    other = Process.of(os.getppid())
    assert other is not None
    other.write(folder / "owner")
    with pytest.raises(RuntimeError, match=f"process {other.pid} has a cluster there"):
        Cluster(folder).up()


def test_absent_packages_are_found() -> None:
    assert absent(["dpkg", "kdbench-no-such-package"]) == ["kdbench-no-such-package"]
