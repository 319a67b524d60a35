"""One cluster a session; each test finds it healthy and empty."""

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
    """The session's cluster; its folder, with the logs, stays if a test failed or a daemon."""
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
    for line in cluster.told:
        request.config.get_terminal_writer().line(f"\n{line}")
    if not request.session.testsfailed and not cluster.told:
        shutil.rmtree(folder)


@pytest.fixture
def cluster(slurm_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The cluster, its clients' variables set; afterwards jobs are cancelled and faults mended."""
    for name in os.environ:
        if name.startswith(("SLURM", "SBATCH")):
            monkeypatch.delenv(name)
    for name, value in slurm_cluster.env.items():
        monkeypatch.setenv(name, value)
    yield slurm_cluster
    slurm_cluster.heal()
    slurm_cluster.cancel_all()
    slurm_cluster.wait_idle(60)
