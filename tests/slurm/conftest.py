"""One cluster per session, healthy and without jobs at the start of each test."""

import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from required_tools import required

from tests.slurm import diagnosis
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
def cluster(
    slurm_cluster: Cluster, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Cluster]:
    """Set the variables of clients; after the test, repair the cluster and cancel all jobs."""
    for name in os.environ:
        if name.startswith(("SLURM", "SBATCH")):
            monkeypatch.delenv(name)
    for name, value in slurm_cluster.env.items():
        monkeypatch.setenv(name, value)
    slurm_cluster.wait_idle()
    request.node.stash[diagnosis.EARLIER] = frozenset(diagnosis.jobs(slurm_cluster))
    yield slurm_cluster
    slurm_cluster.heal()
    slurm_cluster.cancel_all()
    slurm_cluster.wait_idle()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the state of the cluster to the report of a failed test; CI keeps only the output."""
    report = yield
    cluster = (getattr(item, "funcargs", None) or {}).get("slurm_cluster")
    if report.failed and cluster:
        earlier = item.stash.get(diagnosis.EARLIER, frozenset())
        report.sections += list(diagnosis.sections(cluster, earlier))
    return report
