"""Removal of the processes and files of clusters whose session has died."""

import os
import shutil
from pathlib import Path

from tests.slurm import machine
from tests.slurm.daemons import Daemons
from tests.slurm.processes import Process, carrying


def end(folder: Path) -> None:
    """Kill all processes of a folder's cluster, including jobs, and remove its host names."""
    daemons = Daemons(folder)
    for name in daemons.names():
        daemons.end(name, 0)
    ours = f"SLURM_CONF={folder}/etc/slurm.conf"
    while left := carrying([ours], ("KDBENCH_NODE", "SLURMD_NODENAME")):
        for process in left:
            process.end()
    machine.forget_hosts(folder)


def sweep(pattern: str, parent: Path = Path("/tmp")) -> None:
    """End the clusters of sessions that died, and delete their folders."""
    for folder in parent.glob(pattern):
        file = folder / "owner"
        mine = not folder.is_symlink() and folder.stat().st_uid == os.geteuid()
        if mine and file.exists() and Process.read(file) is None:
            end(folder)
            shutil.rmtree(folder, ignore_errors=True)
