"""One cluster per session, healthy and without jobs at the start of each test."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from required_tools import required

from tests.slurm.cluster import Cluster
from tests.slurm.leftovers import sweep


@pytest.fixture(scope="session")
def slurm_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Start the session's cluster; keep its folder with the logs if a test or a daemon failed."""
    if reason := Cluster.missing():
        if required("slurm"):
            pytest.fail(f"KDBENCH_REQUIRE=slurm, but a cluster {reason}")
        pytest.skip(reason)
    sweep("kdb-*")
    folder = Path(tempfile.mkdtemp(prefix="kdb-", dir="/tmp"))
    cluster = Cluster(folder)
    cluster.install()
    with cluster:
        yield cluster
    for line in cluster.crashes:
        request.config.get_terminal_writer().line(f"\n{line}")
    if not request.session.testsfailed and not cluster.crashes:
        shutil.rmtree(folder)


@pytest.fixture
def cluster(slurm_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Set the variables of clients; after the test, cancel its jobs and repair the cluster."""
    for name in os.environ:
        if name.startswith(("SLURM", "SBATCH")):
            monkeypatch.delenv(name)
    for name, value in slurm_cluster.env.items():
        monkeypatch.setenv(name, value)
    yield slurm_cluster
    slurm_cluster.heal()
    slurm_cluster.cancel_all()
    slurm_cluster.wait_idle(60)
