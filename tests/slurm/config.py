"""The configuration files of a private Slurm 22.05 that needs no cgroups and no real resources."""

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

CLUSTER = "kdbench"


@dataclass(frozen=True)
class Config:
    """The configuration of a cluster that listens on loopback only.

    Attributes:
        folder: folder of the cluster.
        port: first port of the cluster.
        nodes: number of nodes, named n1, n2, ..
        cpus: per node; neither these nor the memory and the GPUs need exist.
        memory_mb: MiB per node.
        gpus: per node.
        extra: replaces or adds keys of slurm.conf; ``PartitionName`` adds a partition.
    """

    folder: Path
    port: int
    nodes: int
    cpus: int
    memory_mb: int
    gpus: int
    accounting: bool
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def slurm(self) -> Path:
        """Path of slurm.conf, the only file that clients need."""
        return self.folder / "etc" / "slurm.conf"

    @property
    def munge(self) -> Path:
        """Path of the socket of munged."""
        return self.folder / "run" / "munge.sock"

    def write(self) -> None:
        """Write the files, and create the devices that represent GPUs."""
        etc = self.slurm.parent
        (etc / "gres.conf").write_text(self._gres(), encoding="utf-8")
        dbd = etc / "slurmdbd.conf"
        dbd.touch(mode=0o600)
        dbd.write_text(_lines(self._dbd()), encoding="utf-8")
        values = self._general() | self._times() | self._scheduling() | self._storage()
        extra = dict(self.extra)
        partition = extra.pop("PartitionName", None)
        # If a key is set twice, every command prints a warning.
        known = {key.lower(): key for key in values}
        values |= {known.get(key.lower(), key): value for key, value in extra.items()}
        text = _lines(values) + self._nodes()
        text += f"PartitionName={partition}\n" if partition else ""
        self.slurm.write_text(text, encoding="utf-8")

    def _general(self) -> dict[str, str]:
        run, log = self.folder / "run", self.folder / "log"
        return {
            "ClusterName": CLUSTER,
            "SlurmctldHost": f"{_hostname()}(127.0.0.1)",
            "SlurmctldPort": str(self.port),
            "SlurmUser": "root",
            "SlurmdUser": "root",
            "AuthType": "auth/munge",
            "AuthInfo": f"socket={self.munge}",
            "CredType": "cred/munge",
            "CommunicationParameters": "NoCtldInAddrAny,NoInAddrAny",
            "StateSaveLocation": f"{self.folder}/state",
            "SlurmdSpoolDir": f"{self.folder}/spool/%n",
            "SlurmctldPidFile": f"{run}/slurmctld.pid",
            "SlurmdPidFile": f"{run}/slurmd-%n.pid",
            "SlurmctldLogFile": f"{log}/slurmctld.log",
            "SlurmdLogFile": f"{log}/slurmd-%n.log",
            "SlurmctldDebug": "info",
            "SlurmdDebug": "info",
            "MailProg": "/bin/true",
            # With reused numbers, submitit would read the result file of an older job.
            "FirstJobId": str(int(time.time()) % 60_000_000 + 1000),
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "JobAcctGatherType": "jobacct_gather/none",
            "MpiDefault": "none",
            "SwitchType": "switch/none",
            # Resources as in this file, not those of the machine.
            "SlurmdParameters": "config_overrides",
            "GresTypes": "gpu",
        }

    def _times(self) -> dict[str, str]:
        # Slurm's defaults: SlurmdTimeout 300, KillWait 30, SlurmctldTimeout 120.
        return {
            "SlurmctldTimeout": "30",
            "SlurmdTimeout": "15",
            "KillWait": "3",
            "MessageTimeout": "10",
            "TCPTimeout": "2",
            "MinJobAge": "300",
            "ReturnToService": "2",
        }

    def _scheduling(self) -> dict[str, str]:
        return {
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_CPU_Memory",
            # Without this, a job takes all memory of its node.
            "DefMemPerCPU": "100",
            "SchedulerType": "sched/backfill",
            "SchedulerParameters": "batch_sched_delay=1,sched_interval=5,bf_interval=5",
            "PriorityType": "priority/basic",
            "EnforcePartLimits": "NO",
            "MaxArraySize": "1001",
            "MaxJobCount": "20000",
            "JobRequeue": "1",
            "PreemptType": "preempt/partition_prio",
            "PreemptMode": "REQUEUE",
            # Preemption sends the signal that a job requested instead of TERM.
            "SlurmctldParameters": "preempt_send_user_signal",
        }

    def _storage(self) -> dict[str, str]:
        finished = {
            "JobCompType": "jobcomp/filetxt",
            "JobCompLoc": f"{self.folder}/log/jobcomp.txt",
        }
        if not self.accounting:
            return finished | {"AccountingStorageType": "accounting_storage/none"}
        return finished | {
            "AccountingStorageType": "accounting_storage/slurmdbd",
            "AccountingStorageHost": "127.0.0.1",
            "AccountingStoragePort": str(self.port + 1),
            # Otherwise sacct looks for munged at /run/munge.
            "AccountingStoragePass": str(self.munge),
            "AccountingStorageTRES": "gres/gpu",
        }

    def _dbd(self) -> dict[str, str]:
        return {
            "DbdHost": _hostname(),
            "DbdAddr": "127.0.0.1",
            "DbdPort": str(self.port + 1),
            "SlurmUser": "root",
            "AuthType": "auth/munge",
            "AuthInfo": f"socket={self.munge}",
            "StorageType": "accounting_storage/mysql",
            "StorageHost": "localhost",
            "StorageUser": "root",
            "StorageLoc": "slurm_acct",
            "PidFile": f"{self.folder}/run/slurmdbd.pid",
            "LogFile": f"{self.folder}/log/slurmdbd.log",
            "DebugLevel": "info",
            "CommitDelay": "1",
            "CommunicationParameters": "NoInAddrAny",
        }

    def _gres(self) -> str:
        # Slurm sets CUDA_VISIBLE_DEVICES only for character devices, but follows links to them,
        # which can be created without privileges.
        text = ""
        for number in range(self.gpus):
            device = self.folder / "gpu" / f"nvidia{number}"
            device.unlink(missing_ok=True)
            device.symlink_to("/dev/null")
            text += f"NodeName=n[1-{self.nodes}] Name=gpu File={device}\n"
        return text

    def _nodes(self) -> str:
        first = self.port + 2
        gres = f" Gres=gpu:{self.gpus}" if self.gpus else ""
        every = "Nodes=ALL MaxTime=INFINITE DefaultTime=60 State=UP"
        preempted = "PriorityTier=1 GraceTime=20"
        return (
            f"NodeName=n[1-{self.nodes}] NodeHostname={_hostname()} NodeAddr=127.0.0.1"
            f" Port={first}-{first + self.nodes - 1} CPUs={self.cpus}"
            f" RealMemory={self.memory_mb}{gres} State=UNKNOWN\n"
            f"PartitionName=main {every} Default=YES PriorityTier=10 PreemptMode=OFF\n"
            f"PartitionName=low {every} {preempted} PreemptMode=REQUEUE\n"
            f"PartitionName=cancelling {every} {preempted} PreemptMode=CANCEL\n"
        )


def _hostname() -> str:
    return socket.gethostname().partition(".")[0]


def _lines(values: Mapping[str, str]) -> str:
    return "".join(f"{key}={value}\n" for key, value in values.items())
