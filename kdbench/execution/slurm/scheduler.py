"""Slurm's commands: few calls, each with a time-out, and their answers as plain values.

Whatever goes wrong with a call is ``SchedulerError``: Slurm does not answer, which says nothing
about jobs. No call is made sooner than ``GAP_SECONDS`` after the last one.
"""

import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from kdbench.execution import crashes

GAP_SECONDS = 0.5
TIMEOUT_SECONDS = 30.0
PREFIX = "kdb-"
"""Every job of kdbench is called so."""
TERMINAL = frozenset(
    {
        *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "LAUNCH_FAILED"),
        *("NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "RECONFIG_FAIL", "REVOKED", "TIMEOUT"),
    }
)
"""States that a job has at its end; it may have left one of them again by being requeued."""


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
    """What sacct says of a job or an element; it lags behind squeue."""

    state: str
    exit_code: str = ""
    nodes: str = ""

    @property
    def signal(self) -> int:
        """The signal that ended the job's process; 0: none.

        sacct gives ``0:6`` for a process that died of signal 6, and ``134:0`` if a shell saw it.
        """
        code, _, number = self.exit_code.partition(":")
        if not (code.isdecimal() and number.isdecimal()):
            return 0
        return int(number) or max(0, int(code) - 128)

    def __str__(self) -> str:
        code = f", exit code {self.exit_code}" if self.exit_code not in ("", "0:0") else ""
        why = f" ({crashes.cause(self.signal)})" if self.signal in crashes.NATIVE else ""
        where = f" on {self.nodes}" if self.nodes not in ("", "None assigned") else ""
        return f"{self.state}{code}{why}{where}"


@dataclass(frozen=True)
class Partition:
    """A partition, as sinfo tells it; per node: ``cpus``, ``memory`` in MB, ``gpus``."""

    name: str
    default: bool
    cpus: int
    memory: int
    gpus: int


Run = Callable[[Sequence[str], float], str]
"""Runs a command within so many seconds and returns its output, or raises ``SchedulerError``."""


def run_command(command: Sequence[str], timeout: float) -> str:
    """Run a command of Slurm's.

    Raises:
        SchedulerError: it is not there, failed, or did not end within ``timeout`` seconds.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise SchedulerError(f"{command[0]}: no answer within {timeout:.0f} s") from None
    except OSError as error:
        raise SchedulerError(f"{command[0]}: {error.strerror or error}") from None
    if done.returncode:
        told = " ".join((done.stderr or done.stdout).split())
        raise SchedulerError(f"{command[0]}: {told or f'exit code {done.returncode}'}")
    return done.stdout


@dataclass
class Scheduler:
    """Asks Slurm.

    Attributes:
        run: how a command is run. gap: seconds between two calls.
        calls: how often each command was called.
    """

    run: Run = run_command
    gap: float = GAP_SECONDS
    calls: Counter[str] = field(default_factory=Counter)
    _last: float = -1e9

    def ask(self, *command: str, timeout: float = TIMEOUT_SECONDS) -> str:
        """Call a command, not too soon after the last."""
        self.pause()
        self.calls[command[0]] += 1
        try:
            return self.run(command, timeout)
        finally:
            self._last = time.monotonic()

    def pause(self) -> None:
        """Wait until another call is due."""
        time.sleep(max(0.0, min(self.gap, self._last + self.gap - time.monotonic())))

    def queue(self, timeout: float = TIMEOUT_SECONDS) -> dict[str, Queued]:
        """All jobs of this user that Slurm still knows as its own: id -> state.

        An element of an array has the id ``123_4``.
        """
        cells = "--format=%F|%K|%T|%r|%N|%j"
        text = self.ask("squeue", "--noheader", "--array", "--me", cells, timeout=timeout)
        found = {}
        for line in text.splitlines():
            array, index, state, reason, nodes, name = line.split("|", 5)
            if name.startswith(PREFIX):
                key = f"{array}_{index}" if index.isdigit() else array
                found[key] = Queued(state, reason, nodes, name)
        return found

    def accounting(self, jobs: Iterable[str]) -> dict[str, Ended]:
        """The last thing sacct knows of jobs and of all their elements."""
        asked = sorted({job.partition("_")[0] for job in jobs})
        text = self.ask(
            *("sacct", "--noheader", "--parsable2", "--allocations", "--duplicates"),
            *(f"--jobs={','.join(asked)}", "--format=JobID,State,ExitCode,NodeList"),
        )
        found = {}
        for line in text.splitlines():
            job, state, code, nodes = line.split("|", 3)
            found[job] = Ended(state.split()[0] if state else "", code, nodes)
        return found

    def find(self, name: str) -> str | None:
        """The id of the job of this name, running, waiting or ended within the last week."""
        text = self.ask("squeue", "--noheader", "--me", f"--name={name}", "--format=%F")
        if text.split():
            return text.split()[0]
        text = self.ask(
            *("sacct", "--noheader", "--parsable2", "--allocations", f"--name={name}"),
            *("--starttime=now-7days", "--format=JobID"),
        )
        return text.split()[0].partition("_")[0] if text.split() else None

    def cancel(self, jobs: Iterable[str]) -> None:
        """Cancel jobs or elements; one that has ended is no error."""
        wanted = sorted(jobs)
        for start in range(0, len(wanted), 200):
            self.ask("scancel", *wanted[start : start + 200])

    def partitions(self) -> list[Partition]:
        """Every partition, as large as its largest node."""
        found: dict[str, Partition] = {}
        for line in self.ask("sinfo", "--noheader", "--format=%P|%c|%m|%G").splitlines():
            name, cpus, memory, gres = line.split("|", 3)
            one = Partition(
                name.rstrip("*"),
                name.endswith("*"),
                _positive_int(cpus),
                _positive_int(memory),
                _gpus(gres),
            )
            before = found.get(one.name, one)
            found[one.name] = Partition(
                one.name,
                one.default,
                max(one.cpus, before.cpus),
                max(one.memory, before.memory),
                max(one.gpus, before.gpus),
            )
        return list(found.values())

    def config(self) -> dict[str, str]:
        """The cluster's configuration, e.g. ``MaxArraySize``."""
        pairs = (
            line.split("=", 1)
            for line in self.ask("scontrol", "show", "config").splitlines()
            if "=" in line
        )
        return {key.strip(): value.strip() for key, value in pairs}


def has_slurm() -> bool:
    """Whether this machine has Slurm's commands."""
    return bool(shutil.which("sbatch") and shutil.which("squeue"))


def _positive_int(text: str) -> int:
    found = re.match(r"\d+", text)
    return int(found.group()) if found else 0


def _gpus(gres: str) -> int:
    """GPUs in ``gpu:a100:4(S:0-1),shard:8``."""
    found = re.findall(r"\bgpu:(?:[^:,()]+:)?(\d+)", gres)
    return sum(map(int, found))
