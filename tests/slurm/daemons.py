"""The daemons of a cluster: how to start each, check whether it is ready, and end it."""

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.slurm.processes import Process

NODE = "slurmd-"
"""Prefix of a node's name in the name of its daemon."""


class Daemons:
    """munged, mariadbd, slurmdbd, slurmctld and slurmd-n1 .. of the cluster in ``folder``.

    Each runs in its foreground mode, in a separate session that an interrupt from the keyboard does
    not reach. Its process is recorded in ``folder/pids``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pids, self.logs, self.run = folder / "pids", folder / "log", folder / "run"
        self.conf = f"{folder}/etc/slurm.conf"
        # A child that is not waited for stays a zombie, and a deleted Popen warns.
        self.children: list[subprocess.Popen[bytes]] = []
        self._latest: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, env: Mapping[str, str]) -> None:
        """Start a daemon that does not run, with its output in ``folder/log``."""
        self.reap()
        self._prepare(name, env)
        marks = {
            "KDBENCH_NODE": name.removeprefix(NODE),
            "MYSQL_UNIX_PORT": f"{self.run}/mysql.sock",
        }
        with (self.logs / f"{name}.out").open("ab") as log:
            child = subprocess.Popen(
                self._command(name),
                env={**env, **marks},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.logs,  # for a core
                start_new_session=True,
            )
        self.children.append(child)
        self._latest[name] = child
        if process := Process.of(child.pid):
            process.write(self.pids / name)

    def get(self, name: str) -> Process | None:
        """Return the process of a daemon if it runs."""
        return Process.read(self.pids / name)

    def died(self, name: str) -> str:
        """Return how a daemon died by itself, e.g. "SIGSEGV"; "" if it runs or was ended."""
        child = self._latest.get(name)
        code = child.poll() if child else None
        if code in (None, 0, -signal.SIGTERM, -signal.SIGKILL):
            return ""
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def end(self, name: str, seconds: float) -> None:
        """End a daemon if it runs, by TERM, and by KILL after ``seconds``."""
        if process := self.get(name):
            process.end(seconds)
        (self.pids / name).unlink(missing_ok=True)
        self.reap()

    def names(self) -> list[str]:
        """Return the names of all recorded daemons, running or not."""
        return sorted(file.name for file in self.pids.glob("*"))

    def reap(self) -> None:
        """Collect the exit status of daemons that have ended."""
        self.children = [child for child in self.children if child.poll() is None]

    def tail(self, name: str, lines: int = 5) -> str:
        """Return the last lines of a daemon's logs."""
        text = ""
        for file in (self.logs / f"{name}.out", self.logs / f"{name}.log"):
            if file.exists():
                text += "\n".join(file.read_text("utf-8", "replace").splitlines()[-lines:]) + "\n"
        return text

    def question(self, name: str) -> list[str]:
        """Return a command that succeeds once the daemon is ready."""
        return {
            "munged": ["munge", "-n", f"--socket={self.run}/munge.sock"],
            "mariadbd": [*self._sql(), "create database if not exists slurm_acct"],
            "slurmdbd": ["sacctmgr", "-n", "-P", "list", "cluster"],
            "slurmctld": ["scontrol", "ping"],
        }.get(
            name,
            ["env", f"SLURMD_NODENAME={name.removeprefix(NODE)}", "scontrol", "show", "slurmd"],
        )

    def _sql(self) -> list[str]:
        sock = f"--socket={self.run}/mysql.sock"
        return ["mariadb", "--no-defaults", sock, "--user=root", "-e"]

    def _prepare(self, name: str, env: Mapping[str, str]) -> None:
        if name == "munged":
            key = self.folder / "munge" / "key"
            if not key.exists():
                key.touch(mode=0o600)
                key.write_bytes(os.urandom(128))
            for file in self.run.glob("munge.sock*"):
                file.unlink()
        elif name == "mariadbd" and not (self.folder / "db" / "mysql").exists():
            create = [
                *("mariadb-install-db", "--no-defaults", "--user=root", "--skip-test-db"),
                *(f"--datadir={self.folder}/db", "--auth-root-authentication-method=socket"),
                "--innodb-log-file-size=16M",
            ]
            with (self.logs / "mariadb-install.out").open("wb") as log:
                subprocess.run(create, env=env, stdout=log, stderr=log, check=True)
        elif name.startswith(NODE):
            (self.folder / "spool" / name.removeprefix(NODE)).mkdir(exist_ok=True)

    def _command(self, name: str) -> list[str]:
        run, log = self.run, self.logs
        if name == "munged":
            return [
                *("munged", "--foreground", "--force", "--num-threads=2"),
                *(f"--socket={run}/munge.sock", f"--pid-file={run}/munged.pid"),
                *(f"--key-file={self.folder}/munge/key", f"--seed-file={self.folder}/munge/seed"),
                f"--log-file={log}/munged.log",
            ]
        if name == "mariadbd":
            return [
                *("mariadbd", "--no-defaults", "--user=root", f"--datadir={self.folder}/db"),
                *(f"--socket={run}/mysql.sock", f"--pid-file={run}/mariadbd.pid"),
                *(f"--log-error={log}/mariadbd.log", "--skip-networking", "--skip-log-bin"),
                *("--performance-schema=OFF", "--innodb-buffer-pool-size=64M"),
                *("--innodb-log-file-size=16M", "--innodb-lock-wait-timeout=900"),
                *("--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync"),
            ]
        if name == "slurmdbd":
            return ["slurmdbd", "-D"]
        if name == "slurmctld":
            # -i: accept a state saved by another version. Without -c, the queue is kept.
            return ["slurmctld", "-D", "-i", "-f", self.conf]
        return ["slurmd", "-D", "-N", name.removeprefix(NODE), "-f", self.conf]
