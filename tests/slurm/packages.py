"""Debian's Slurm packages, and their installation without starting services."""

import os
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

SLURM = ("munge", "slurmctld", "slurmd", "slurm-client")
ACCOUNTING = ("slurmdbd", "mariadb-server-core", "mariadb-client-core")
POLICY = Path("/usr/sbin/policy-rc.d")
LISTS = Path("/var/lib/apt/lists")
APT = ("apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300")


def absent(packages: Iterable[str]) -> list[str]:
    """Return the packages that are not installed and configured."""
    query = ("dpkg-query", "-W", "-f=${Package} ${db:Status-Status}\n")
    answer = subprocess.run([*query, *packages], capture_output=True, text=True, check=False)
    lines = answer.stdout.splitlines()
    installed = {line.split()[0] for line in lines if line.endswith(" installed")}
    return [package for package in packages if package not in installed]


def install(packages: Iterable[str]) -> None:
    """Install missing packages, without recommended ones and without starting services.

    Raises:
        RuntimeError: apt-get failed twice, the second time with fresh package lists.
    """
    wanted = absent(packages)
    if not wanted:
        return
    made_policy = not POLICY.exists()
    if made_policy:
        POLICY.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
        POLICY.chmod(0o755)
    try:
        if not any(LISTS.glob("*_Packages*")):
            _apt("update")
        if not _apt("install", "--no-install-recommends", *wanted):
            return
        _apt("update")
        log = _apt("install", "--no-install-recommends", *wanted)
    finally:
        if made_policy:
            POLICY.unlink(missing_ok=True)
    if log:
        raise RuntimeError(f"apt-get install {' '.join(wanted)} failed:\n{log}")


def _apt(*args: str) -> str:
    """Run apt-get; return the end of its log if it failed, otherwise ""."""
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with tempfile.TemporaryFile("w+") as log:
        done = subprocess.run(
            [*APT, *args], env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False
        )
        if done.returncode == 0:
            return ""
        log.seek(0)
        return "".join(log.readlines()[-20:]) or f"exit {done.returncode}"
