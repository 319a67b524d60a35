"""A real Slurm of several nodes on one Debian machine: root, no systemd, no containers, no cgroups.

One slurmd a node, each with a port of its own, and munged, MariaDB, slurmdbd and slurmctld, all in
one folder and on loopback. Nodes claim CPUs, memory and GPUs that need not exist. A requeued job
waits two minutes, which 22.05 hard-codes: ``release`` lets it go. Time limits are whole minutes,
looked at each 30 s.
"""

import atexit
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from required_tools import required

from tests.slurm import machine, packages
from tests.slurm.config import CLUSTER, Config
from tests.slurm.daemons import NODE, Daemons
from tests.slurm.leftovers import end
from tests.slurm.processes import Process, carrying, until

PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
UP = {"idle", "mixed", "allocated", "completing", "planned", "reserved"}
NOT_REACHED = "Unable to contact slurm controller (connect failure)"
"""A command that says so has done nothing: asked again, it is not done twice."""
IDLE = re.compile(r"^Agent queue size: +0$.*^Agent count: +0$", re.MULTILINE | re.DOTALL)
"""What sdiag says when no message of slurmctld is on its way to a node."""
LONGEST = 70
"""Characters of a folder's name that leave room for a Unix socket's 107."""


class Cluster:
    """A cluster in a folder; a context manager, which does ``up`` and ``down``.

    ``env`` is what a client's environment needs; ``told`` has a line for each daemon that died by
    itself and was started again. Daemons are named munged, mariadbd, slurmdbd, slurmctld,
    slurmd-n1 ..; nodes n1, n2 .. Partitions: ``main``, before which jobs in ``low`` are requeued
    and those in ``cancelling`` cancelled, 20 s after the signal they asked for.
    """

    def __init__(
        self,
        folder: Path,
        nodes: int = 4,
        cpus: int = 8,
        memory_mb: int = 16000,
        gpus: int = 2,
        accounting: bool = True,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder.resolve()
        if len(str(self.folder)) > LONGEST:
            raise ValueError(f"{folder}: over {LONGEST} characters, too long for Unix sockets")
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self.shape = (nodes, cpus, memory_mb, gpus, accounting, dict(extra or {}))
        self.accounting = accounting
        self.env = {"SLURM_CONF": str(self.folder / "etc" / "slurm.conf"), "PATH": PATH}
        self.daemons = Daemons(self.folder)
        self.told: list[str] = []
        self._port: socket.socket | None = None
        self._owner = os.getpid()

    @staticmethod
    def missing() -> str | None:
        """Why no cluster can run here; None if one can, at most after ``install``."""
        if os.geteuid() != 0:
            return "needs root"
        if not shutil.which("dpkg-query"):
            return "needs Debian's packages"
        wanted = packages.absent(packages.SLURM + packages.ACCOUNTING)
        if wanted and not required("slurm"):
            return f"needs {', '.join(wanted)}; KDBENCH_REQUIRE=slurm installs them"
        return None

    def install(self) -> None:
        """Install the packages that are absent."""
        packages.install(packages.SLURM + (packages.ACCOUNTING if self.accounting else ()))

    def __enter__(self) -> Self:
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.down()

    def up(self) -> None:
        """Start the cluster and wait until every node is idle.

        Raises:
            RuntimeError: the folder has a live cluster of another process.
            TimeoutError: a daemon did not come up; the message has the end of its log.
        """
        owner = Process.read(self.folder / "owner")
        if owner and owner.pid != os.getpid():
            raise RuntimeError(f"{self.folder}: process {owner.pid} has a cluster there")
        if self._port is None:
            end(self.folder)
            for name in ("etc", "run", "log", "state", "spool", "munge", "pids", "gpu"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            self.folder.chmod(0o755)
            (self.folder / "munge").chmod(0o700)
            if me := Process.of(os.getpid()):
                me.write(self.folder / "owner")
            self._port, base = machine.reserve(count=2 + len(self.nodes))
            Config(self.folder, base + 1, *self.shape).write()
            machine.name_hosts(self.nodes, self.folder)
            atexit.register(self._at_exit)
        self.heal()

    def down(self) -> None:
        """Cancel all jobs and end every process of the cluster; its files stay."""
        if self._port is None:
            return
        for name in self.daemons.names():
            if process := self.daemons.get(name):
                process.send(signal.SIGCONT)
        with contextlib.suppress(RuntimeError, subprocess.SubprocessError, TimeoutError):
            # Without munged each command takes 49 s to fail.
            if self.daemons.get("munged") and self.daemons.get("slurmctld"):
                self.cancel_all()
                until("the end of the jobs", 8, lambda: not self.sh("squeue", "-h"))
        for node in self.nodes:
            self.daemons.end(NODE + node, 5)
        for name in ("slurmctld", "slurmdbd", "mariadbd", "munged"):
            self.daemons.end(name, 10)
        end(self.folder)
        self.daemons.reap()
        self._port.close()
        self._port = None
        atexit.unregister(self._at_exit)

    def _at_exit(self) -> None:
        if os.getpid() == self._owner:
            self.down()

    def sh(self, *command: str, check: bool = True) -> str:
        """Run a Slurm command; return what it prints, stripped.

        A slurmctld that died by itself is started again, as a service manager would.

        Raises:
            RuntimeError: it failed, if ``check``; the message has what it said.
            subprocess.TimeoutExpired: it took over 90 s.
        """
        done = self._run(command)
        if done.returncode and NOT_REACHED in done.stderr and self.daemons.died("slurmctld"):
            self._start("slurmctld")
            done = self._run(command)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr}")
        return done.stdout.strip()

    def _run(self, command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command, env=self._env(), capture_output=True, text=True, timeout=90, check=False
        )

    def _env(self) -> dict[str, str]:
        # Without what an outer Slurm may have set.
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH"))}
        return {**clean, **self.env}

    def _answers(self, *command: str) -> bool:
        try:
            self.sh(*command)
        except (RuntimeError, subprocess.TimeoutExpired):
            return False
        return True

    def kill(self, daemon: str, signal: str = "KILL") -> None:
        """Send a signal to a daemon; after KILL or TERM, return once it is gone."""
        process = self._running(daemon)
        process.send(_number(signal))
        if signal in ("KILL", "TERM"):
            until(f"the end of {daemon}", 30, lambda: not process.alive(), 0.02)
            self.daemons.reap()

    def pause(self, daemon: str) -> None:
        """Let a daemon hang: it accepts connections and does not answer."""
        self._running(daemon).send(signal.SIGSTOP)

    def resume(self, daemon: str) -> None:
        """Let a daemon go on after ``pause``."""
        self._running(daemon).send(signal.SIGCONT)

    def restart(self, daemon: str) -> None:
        """End a daemon, if it runs, start it, and wait until it answers."""
        self.daemons.end(daemon, 10)
        self._start(daemon)

    def crash(self, node: str, noticed: bool = False) -> None:
        """Lose a node at once: its slurmd, slurmstepds, sruns and tasks, all KILLed.

        Slurm finds out after SlurmdTimeout (15 s, and up to 15 more), at once if ``noticed``.
        """
        marks = (f"KDBENCH_NODE={node}", f"SLURMD_NODENAME={node}")
        while doomed := carrying([f"SLURM_CONF={self.env['SLURM_CONF']}"], marks):
            for process in doomed:
                process.end()
        self.daemons.reap()
        if noticed:
            self.sh("scontrol", "update", f"nodename={node}", "state=down", "reason=crash")

    def revive(self, node: str) -> None:
        """Start a node's slurmd, if it does not run, and put the node back to work."""
        self._start(NODE + node)
        until(f"node {node}", 60, lambda: self._resumed([node]))

    def heal(self) -> None:
        """Start or resume every daemon that does not answer; put every node back to work."""
        names = ["munged", "mariadbd", "slurmdbd", "slurmctld"]
        if not self.accounting:
            names = ["munged", "slurmctld"]
        for name in (*names, *(NODE + node for node in self.nodes)):
            self._start(name)
        until("the nodes", 60, lambda: self._resumed(self.nodes))
        if self.accounting:
            until("slurmctld in the accounting", 60, self._registered)

    def release(self, job: str | int) -> None:
        """Let a job that was requeued start now.

        Raises:
            TimeoutError: the job is not pending, even after 60 s for its old processes to end.
        """
        until(f"the requeue of job {job}", 60, lambda: self._state(job) == "PENDING")
        self._release([str(job)])

    def release_all(self) -> list[str]:
        """Let every job start now that waits for its start time; return their numbers."""
        lines = self.sh("squeue", "-h", "-r", "-t", "PENDING", "-o", "%i %r").splitlines()
        waiting = [line.split()[0] for line in lines if line.endswith(" BeginTime")]
        self._release(waiting)
        return waiting

    def _release(self, jobs: list[str]) -> None:
        if jobs:
            # slurmctld tries for 10 s to tell a node to end the old run. Arriving late, that ends
            # the new run, or leaves it without nodes: its next srun then crashes slurmctld. Real
            # jobs wait two minutes. A node that stays away must not keep the others waiting.
            with contextlib.suppress(TimeoutError):
                until("the end of the old runs", 15, lambda: IDLE.search(self.sh("sdiag")))
        # A start in the second of the requeue fails: slurmd takes it for the run that was ended
        # ("Job credential revoked").
        for job in jobs:
            requeued = self.sh("squeue", "-h", "-o", "%V", "-j", job)
            if requeued:
                time.sleep(
                    max(0.0, datetime.fromisoformat(requeued).timestamp() + 1.1 - time.time())
                )
                self.sh("scontrol", "update", f"jobid={job}", "StartTime=now")

    def cancel_all(self) -> None:
        """Cancel every job, and KILL what runs without KillWait's delay."""
        self.sh("scancel", "--user=root", "--quiet", check=False)
        self.sh("scancel", "--user=root", "--full", "--signal=KILL", "--quiet", check=False)

    def wait_idle(self, seconds: float = 30) -> None:
        """Wait until no job is queued and every node is idle.

        Raises:
            TimeoutError: that did not happen.
        """
        until("an idle cluster", seconds, self._idle)

    def _idle(self) -> bool:
        return not self.sh("squeue", "-h") and set(self._nodes().values()) == {"idle"}

    def _state(self, job: str | int) -> str:
        return self.sh("squeue", "-h", "-o", "%T", "-j", str(job))

    def _nodes(self) -> dict[str, str]:
        lines = self.sh("sinfo", "-h", "-N", "-o", "%N %T", check=False).splitlines()
        # The mark of a node that backfill plans with.
        return dict(line.rstrip("-").split() for line in lines if line)

    def _resumed(self, nodes: Iterable[str]) -> bool:
        """Whether the nodes work; those that are down or drained are resumed."""
        states = self._nodes()
        bad = [node for node in nodes if states.get(node) not in UP]
        for node in bad:
            if states.get(node, "").startswith(("down", "drain")):
                self.sh("scontrol", "update", f"nodename={node}", "state=resume", check=False)
        return not bad

    def _registered(self) -> bool:
        lines = self.sh("sacctmgr", "-n", "-P", "list", "cluster", "format=cluster,controlport")
        port = lines.partition(f"{CLUSTER}|")[2]
        return bool(port) and port.split()[0] != "0"

    def _running(self, daemon: str) -> Process:
        process = self.daemons.get(daemon)
        if process is None:
            raise RuntimeError(f"{daemon} does not run; known: {', '.join(self.daemons.names())}")
        return process

    def _start(self, name: str) -> None:
        """Start a daemon, or let it go on, and wait until it answers."""
        if process := self.daemons.get(name):
            process.send(signal.SIGCONT)
        else:
            if how := self.daemons.died(name):
                self.told.append(f"{name} died by itself ({how}), see {self.daemons.logs}")
            self.daemons.start(name, self._env())
        question = self.daemons.question(name)
        try:
            until(name, 60, lambda: self._answers(*question) or not self.daemons.get(name))
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.daemons.tail(name)}") from None
        if not self.daemons.get(name):
            raise RuntimeError(f"{name} died\n{self.daemons.tail(name)}")


def _number(name: str) -> signal.Signals:
    return signal.Signals[f"SIG{name}"]
