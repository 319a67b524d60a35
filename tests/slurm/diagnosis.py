"""What explains a failed test on the cluster: the queue, its jobs, the nodes, the ends of logs."""

import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.daemons import NODE

EARLIER = pytest.StashKey[frozenset[str]]()
"""Jobs that slurmctld knew before the test."""
LINES = 40
"""Lines of each daemon's log."""
JOBS = 20
"""Most jobs that are shown, the latest ones."""


def ask(cluster: Cluster, *command: str, seconds: float = 15.0) -> str:
    """Return the output of a command, or why there is none; never raise, never wait for long."""
    env = {**os.environ, **cluster.env}
    try:
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=seconds, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (done.stdout + done.stderr).strip() or "-"


def jobs(cluster: Cluster) -> dict[str, str]:
    """Return each job that slurmctld knows, by number: the lines of ``scontrol show job``."""
    blocks = ask(cluster, "scontrol", "--details", "show", "job").split("\n\n")
    named = (block.strip() for block in blocks if block.strip().startswith("JobId="))
    return {block.split()[0].removeprefix("JobId="): block for block in named}


def sections(cluster: Cluster, earlier: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Yield titles and texts for the report of a failed test; ``earlier`` jobs are left out."""
    yield "load", f"{os.getloadavg()} on {os.cpu_count()} cores"
    yield "squeue", ask(cluster, "squeue", "--all", "--array")
    new = [text for number, text in jobs(cluster).items() if number not in earlier]
    yield f"jobs of this test, {min(len(new), JOBS)} of {len(new)}", "\n".join(new[-JOBS:])
    yield "sinfo -R", ask(cluster, "sinfo", "-R")
    yield "sdiag", "\n".join(ask(cluster, "sdiag").splitlines()[:16])
    for name in ("slurmctld", *(NODE + node for node in cluster.nodes)):
        log = cluster.daemons.logs / f"{name}.log"
        lines = log.read_text("utf-8", "replace").splitlines() if log.exists() else []
        yield f"{name}, last {LINES} lines", "\n".join(lines[-LINES:])
