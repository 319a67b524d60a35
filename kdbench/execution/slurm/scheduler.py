"""Slurm's commands, with time-outs, and their answers as plain values.

Any failure of a call raises ``SchedulerError``: Slurm does not answer, from which nothing follows
about jobs. Calls are at least ``GAP_SECONDS`` apart.
"""

import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from kdbench.errors import UserError
from kdbench.execution import crashes

GAP_SECONDS = 0.5
TIMEOUT_SECONDS = 30.0
PREFIX = "kdb-"
"""Prefix of the names of all kdbench jobs."""
COMMANDS = ("sbatch", "squeue", "sinfo", "scontrol", "scancel")
"""Commands without which no job can be submitted and watched."""
TERMINAL = frozenset(
    {
        *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "LAUNCH_FAILED"),
        *("NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "RECONFIG_FAIL", "REVOKED", "TIMEOUT"),
    }
)
"""States of a job that has ended; a requeued job leaves them again."""


class SchedulerError(Exception):
    """A Slurm command failed, or did not answer in time; one line."""


@dataclass(frozen=True)
class Queued:
    """A job, or an element of an array, that squeue lists."""

    state: str
    reason: str = ""
    nodes: str = ""
    name: str = ""


@dataclass(frozen=True)
class Ended:
    """A job, or an element of an array, in sacct, which lags behind squeue."""

    state: str
    exit_code: str = ""
    nodes: str = ""

    @property
    def signal(self) -> int:
        """Signal that killed the job's process, or ``crashes.DEVICE_LOST``; 0: neither.

        For signal 6, sacct reports ``0:6``, or ``134:0`` if the process was run by a shell.
        """
        code, _, number = self.exit_code.partition(":")
        if not (code.isdecimal() and number.isdecimal()):
            return 0
        return int(number) or crashes.number(int(code)) or max(0, int(code) - 128)

    def __str__(self) -> str:
        code = f", exit code {self.exit_code}" if self.exit_code not in ("", "0:0") else ""
        why = f" ({crashes.cause(self.signal)})" if self.signal in crashes.CRASHES else ""
        where = f" on {self.nodes}" if self.nodes not in ("", "None assigned") else ""
        return f"{self.state}{code}{why}{where}"


@dataclass(frozen=True)
class Partition:
    """A partition in sinfo; ``cpus``, ``memory`` in MB and ``gpus`` are per node."""

    name: str
    default: bool
    cpus: int
    memory: int
    gpus: int


Run = Callable[[Sequence[str], float], str]
"""Runs a command with a time-out in seconds and returns its output or raises ``SchedulerError``."""


def run_command(command: Sequence[str], timeout: float) -> str:
    """Run one of Slurm's commands.

    Raises:
        SchedulerError: the command was not found, failed, or took longer than ``timeout`` seconds.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise SchedulerError(f"{command[0]}: no answer within {timeout:.0f} s") from None
    except OSError as error:
        raise SchedulerError(f"{command[0]}: {error.strerror or error}") from None
    if done.returncode:
        message = " ".join((done.stderr or done.stdout).split())
        raise SchedulerError(f"{command[0]}: {message or f'exit code {done.returncode}'}")
    return done.stdout


@dataclass
class Scheduler:
    """Slurm's commands.

    Attributes:
        run: runs a command.
        gap: seconds between two calls.
        calls: how often each command was called.
    """

    run: Run = run_command
    gap: float = GAP_SECONDS
    calls: Counter[str] = field(default_factory=Counter)
    _last: float = -1e9

    def ask(self, *command: str, timeout: float = TIMEOUT_SECONDS) -> str:
        """Run a command, at least ``gap`` seconds after the last one."""
        self.pause()
        self.calls[command[0]] += 1
        try:
            return self.run(command, timeout)
        finally:
            self._last = time.monotonic()

    def pause(self) -> None:
        """Wait until the next call is allowed."""
        time.sleep(max(0.0, min(self.gap, self._last + self.gap - time.monotonic())))

    def queue(self, timeout: float = TIMEOUT_SECONDS) -> dict[str, Queued]:
        """Return this user's kdbench jobs in squeue, by id.

        An element of an array has the id ``123_4``.
        """
        cells = "--format=%F|%K|%T|%r|%N|%j"
        text = self.ask("squeue", "--noheader", "--array", "--me", cells, timeout=timeout)
        jobs = {}
        for line in text.splitlines():
            array, index, state, reason, nodes, name = line.split("|", 5)
            if name.startswith(PREFIX):
                key = f"{array}_{index}" if index.isdigit() else array
                jobs[key] = Queued(state, reason, nodes, name)
        return jobs

    def accounting(self, jobs: Iterable[str]) -> dict[str, Ended]:
        """Return the latest entries of sacct for jobs and all their elements, by id."""
        numbers = sorted({job.partition("_")[0] for job in jobs})
        text = self.ask(
            *("sacct", "--noheader", "--parsable2", "--allocations", "--duplicates"),
            *(f"--jobs={','.join(numbers)}", "--format=JobID,State,ExitCode,NodeList"),
        )
        ended = {}
        for line in text.splitlines():
            job, state, code, nodes = line.split("|", 3)
            ended[job] = Ended(state.split()[0] if state else "", code, nodes)
        return ended

    def find(self, name: str) -> str | None:
        """Return the id of a job by its name if it is in squeue or ended within the last week."""
        text = self.ask("squeue", "--noheader", "--me", f"--name={name}", "--format=%F")
        if text.split():
            return text.split()[0]
        text = self.ask(
            *("sacct", "--noheader", "--parsable2", "--allocations", f"--name={name}"),
            *("--starttime=now-7days", "--format=JobID"),
        )
        return text.split()[0].partition("_")[0] if text.split() else None

    def cancel(self, jobs: Iterable[str]) -> None:
        """Cancel jobs or elements; those that have ended are ignored."""
        names = sorted(jobs)
        for start in range(0, len(names), 200):
            self.ask("scancel", *names[start : start + 200])

    def partitions(self) -> list[Partition]:
        """Return every partition, with the largest cpus, memory and gpus of its nodes."""
        partitions: dict[str, Partition] = {}
        for line in self.ask("sinfo", "--noheader", "--format=%P|%c|%m|%G").splitlines():
            name, cpus, memory, gres = line.split("|", 3)
            nodes = Partition(
                name.rstrip("*"),
                name.endswith("*"),
                _leading_int(cpus),
                _leading_int(memory),
                _gpus(gres),
            )
            before = partitions.get(nodes.name, nodes)
            partitions[nodes.name] = Partition(
                nodes.name,
                nodes.default,
                max(nodes.cpus, before.cpus),
                max(nodes.memory, before.memory),
                max(nodes.gpus, before.gpus),
            )
        return list(partitions.values())

    def config(self) -> dict[str, str]:
        """Return the cluster's configuration, e.g. ``MaxArraySize``."""
        pairs = (
            line.split("=", 1)
            for line in self.ask("scontrol", "show", "config").splitlines()
            if "=" in line
        )
        return {key.strip(): value.strip() for key, value in pairs}


def absent_commands() -> list[str]:
    """Return those of Slurm's commands that this machine lacks."""
    return [name for name in COMMANDS if not shutil.which(name)]


def check_commands() -> None:
    """Check that this machine has Slurm's commands.

    Raises:
        UserError: it lacks some.
    """
    if absent := absent_commands():
        raise UserError(
            f"executor.kind: slurm: this machine lacks Slurm's commands ({', '.join(absent)}); "
            "expected auto, local or debug here (--executor), or a machine of the cluster"
        )


def has_slurm() -> bool:
    """Check whether this machine has Slurm's commands."""
    return not {"sbatch", "squeue"}.intersection(absent_commands())


def _leading_int(text: str) -> int:
    match = re.match(r"\d+", text)
    return int(match.group()) if match else 0


def _gpus(gres: str) -> int:
    """Count the GPUs in ``gpu:a100:4(S:0-1),shard:8``."""
    return sum(map(int, re.findall(r"\bgpu:(?:[^:,()]+:)?(\d+)", gres)))
