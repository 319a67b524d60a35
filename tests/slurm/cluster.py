"""A real Slurm of several nodes on one Debian machine: root, no systemd, no containers, no cgroups.

One slurmd per node, each with its own port, and munged, MariaDB, slurmdbd and slurmctld, all in one
folder and on loopback. Nodes claim CPUs, memory and GPUs that need not exist. Version 22.05 lets a
requeued job wait for two minutes, unless ``release`` is called. Time limits are whole minutes and
checked every 30 s.
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
from functools import partial
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
"""Message of a command that had no effect, so that it can be repeated safely."""
DB_BUSY = "Job update not available right now, the DB index is being set"
"""Message of an update while slurmdbd registers the job; it is over after some seconds."""
IDLE = re.compile(r"^Agent queue size: +0$.*^Agent count: +0$", re.MULTILINE | re.DOTALL)
"""Output of sdiag if no message of slurmctld is on its way to a node."""
LONGEST = 70
"""Longest name of a folder, since the path of a Unix socket has at most 107 characters."""


class Cluster:
    """A cluster in a folder; as a context manager, it calls ``up`` and ``down``.

    Daemons are named munged, mariadbd, slurmdbd, slurmctld, slurmd-n1 ..; nodes n1, n2 .. Jobs in
    the partition ``main`` preempt those in ``low``, which are requeued, and in ``cancelling``,
    which are cancelled, 20 s after the signal that they requested.

    Attributes:
        env: variables that clients need.
        crashes: a line for each daemon that died by itself and was restarted.
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
        self.crashes: list[str] = []
        self._port: socket.socket | None = None
        self._owner = os.getpid()

    @staticmethod
    def missing() -> str | None:
        """Return why no cluster can run here; None if it can, perhaps after ``install``."""
        if os.geteuid() != 0:
            return "needs root"
        if not shutil.which("dpkg-query"):
            return "needs Debian's packages"
        wanted = packages.absent(packages.SLURM + packages.ACCOUNTING)
        if wanted and not required("slurm"):
            return f"needs {', '.join(wanted)}; KDBENCH_REQUIRE=slurm installs them"
        return None

    def install(self) -> None:
        """Install the packages that are missing."""
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
            RuntimeError: a running process has a cluster in the folder.
            TimeoutError: a daemon did not start; the message has the end of its log.
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
        """Cancel all jobs and end every process of the cluster; keep its files."""
        if self._port is None:
            return
        for name in self.daemons.names():
            if process := self.daemons.get(name):
                process.send(signal.SIGCONT)
        with contextlib.suppress(RuntimeError, subprocess.SubprocessError, TimeoutError):
            # Without munged each command takes 49 s to fail.
            if self.daemons.get("munged") and self.daemons.get("slurmctld"):
                self.cancel_all()
                # Jobs that do not end are killed below.
                until("the end of the jobs", lambda: not self.sh("squeue", "-h"), 8)
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
        """Run a Slurm command and return its output, stripped.

        If slurmctld has died by itself, restart it first, as a service manager would.

        Raises:
            RuntimeError: the command failed, if ``check``; the message has its error output.
            subprocess.TimeoutExpired: the command took over 90 s.
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
        # Without the variables of a surrounding Slurm job.
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH"))}
        return {**clean, **self.env}

    def _answers(self, *command: str) -> bool:
        try:
            self.sh(*command)
        except (RuntimeError, subprocess.TimeoutExpired):
            return False
        return True

    def kill(self, daemon: str, signal: str = "KILL") -> None:
        """Send a signal to a daemon; after KILL or TERM, wait for its end."""
        process = self._running(daemon)
        process.send(_number(signal))
        if signal in ("KILL", "TERM"):
            until(f"the end of {daemon}", lambda: not process.alive(), pause=0.02)
            self.daemons.reap()

    def pause(self, daemon: str) -> None:
        """Stop a daemon, so that it accepts connections but does not answer."""
        self._running(daemon).send(signal.SIGSTOP)

    def resume(self, daemon: str) -> None:
        """Resume a daemon after ``pause``."""
        self._running(daemon).send(signal.SIGCONT)

    def restart(self, daemon: str) -> None:
        """End a daemon if it runs, start it, and wait until it answers."""
        self.daemons.end(daemon, 10)
        self._start(daemon)

    def crash(self, node: str, noticed: bool = False) -> None:
        """Kill all processes of a node: its slurmd, slurmstepds, sruns and tasks.

        Slurm notices after SlurmdTimeout (15 s, and up to 15 more), or at once if ``noticed``.
        """
        marks = (f"KDBENCH_NODE={node}", f"SLURMD_NODENAME={node}")
        while doomed := carrying([f"SLURM_CONF={self.env['SLURM_CONF']}"], marks):
            for process in doomed:
                process.end()
        self.daemons.reap()
        if noticed:
            self.sh("scontrol", "update", f"nodename={node}", "state=down", "reason=crash")

    def revive(self, node: str) -> None:
        """Start a node's slurmd if it does not run, and resume the node."""
        self._start(NODE + node)
        until(f"node {node}", lambda: self._resumed([node]))

    def heal(self) -> None:
        """Start or resume every daemon that does not answer, and resume every node."""
        names = ["munged", "mariadbd", "slurmdbd", "slurmctld"]
        if not self.accounting:
            names = ["munged", "slurmctld"]
        for name in (*names, *(NODE + node for node in self.nodes)):
            self._start(name)
        until("the nodes", lambda: self._resumed(self.nodes))
        if self.accounting:
            until("slurmctld in the accounting", self._registered)

    def release(self, job: str | int) -> None:
        """Let a requeued job start now.

        Raises:
            TimeoutError: the job does not become pending, for instance because it has ended.
        """
        until(f"the requeue of job {job}", lambda: self._state(job) == "PENDING")
        self._release([str(job)])

    def release_all(self) -> list[str]:
        """Let all jobs that wait for their start time start now; return their numbers."""
        lines = self.sh("squeue", "-h", "-r", "-t", "PENDING", "-o", "%i %r").splitlines()
        waiting = [line.split()[0] for line in lines if line.endswith(" BeginTime")]
        self._release(waiting)
        return waiting

    def _release(self, jobs: list[str]) -> None:
        if jobs:
            # For 10 s, slurmctld tries to make a node end the old run. A late message would end the
            # new run, or leave it without nodes, and its next srun would crash slurmctld. Real jobs
            # wait two minutes. A node that does not come back must not delay the others.
            with contextlib.suppress(TimeoutError):
                until("the end of the old runs", self._silent, 15)
        # A start in the second of the requeue fails, because slurmd takes it for the old run ("Job
        # credential revoked").
        for job in jobs:
            requeued = self.sh("squeue", "-h", "-o", "%V", "-j", job)
            if requeued:
                time.sleep(
                    max(0.0, datetime.fromisoformat(requeued).timestamp() + 1.1 - time.time())
                )
                until(f"the start of job {job}", partial(self._starts, job))

    def _starts(self, job: str) -> bool:
        """Let a pending job start now; False if slurmctld asks to try again."""
        try:
            self.sh("scontrol", "update", f"jobid={job}", "StartTime=now")
        except RuntimeError as error:
            if DB_BUSY in str(error):
                return False
            raise
        return True

    def cancel_all(self) -> None:
        """Cancel every job, and kill running ones without KillWait's delay."""
        self.sh("scancel", "--user=root", "--quiet", check=False)
        self.sh("scancel", "--user=root", "--full", "--signal=KILL", "--quiet", check=False)

    def wait_idle(self) -> None:
        """Wait until no job is queued, all nodes are idle and no message to a node is on its way.

        A late message to end an old run could delay or disturb the next job.

        Raises:
            TimeoutError: the cluster is not idle within ``DEADLINE``.
        """
        until("an idle cluster", self._idle)
        until("an empty queue of messages to the nodes", self._silent)

    def _idle(self) -> bool:
        return not self.sh("squeue", "-h") and set(self._nodes().values()) == {"idle"}

    def _silent(self) -> bool:
        return bool(IDLE.search(self.sh("sdiag")))

    def _state(self, job: str | int) -> str:
        return self.sh("squeue", "-h", "-o", "%T", "-j", str(job))

    def _nodes(self) -> dict[str, str]:
        lines = self.sh("sinfo", "-h", "-N", "-o", "%N %T", check=False).splitlines()
        # "-" marks a node that the backfill scheduler plans with.
        return dict(line.rstrip("-").split() for line in lines if line)

    def _resumed(self, nodes: Iterable[str]) -> bool:
        """Check whether the nodes work; resume those that are down or drained."""
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
            raise RuntimeError(f"{daemon} does not run; daemons: {', '.join(self.daemons.names())}")
        return process

    def _start(self, name: str) -> None:
        """Start a daemon, or resume it, and wait until it answers."""
        if process := self.daemons.get(name):
            process.send(signal.SIGCONT)
        else:
            if how := self.daemons.died(name):
                self.crashes.append(f"{name} died by itself ({how}), see {self.daemons.logs}")
            self.daemons.start(name, self._env())
        question = self.daemons.question(name)
        try:
            until(name, lambda: self._answers(*question) or not self.daemons.get(name))
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.daemons.tail(name)}") from None
        if not self.daemons.get(name):
            raise RuntimeError(f"{name} died\n{self.daemons.tail(name)}")


def _number(name: str) -> signal.Signals:
    return signal.Signals[f"SIG{name}"]
