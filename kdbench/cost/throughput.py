"""Training steps per second of this machine's processor, by core split and precision.

A small cohort, KD alone with its teacher, trains on noise. The processes of a core split really run
at the same time: they wait for each other, then count the steps that end within the same seconds.
The splits take turns, forwards and backwards.
"""

import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import Literal

import torch

from kdbench.errors import UserError
from kdbench.grid.run import Run, Teacher
from kdbench.grid.settings import Dataset, Training
from kdbench.models import zoo
from kdbench.models.fold_batch_norm import folded
from kdbench.training.build import dry_run
from kdbench.training.device import prepare
from kdbench.training.learner import Learner
from kdbench.training.memory import keep_memory
from kdbench.training.teacher import LoadedTeacher

ROUNDS = 3
SECONDS = 36.0
"""Duration of all measurements together, without starting and warming up."""
MIN_STEPS = 2
"""Steps measured per core split and round, even if they take longer than planned."""
PATIENCE = 300.0
"""Seconds after which a process gives up waiting for the others."""

Step = Callable[[], None]
Precision = Literal["fp32", "tf32", "bf16"]
"""As ``protocol.precision``."""


@dataclass(frozen=True)
class Workload:
    """The training to measure: a pair, images [batch_size, channels, size, size], K classes."""

    teacher: str = "resnet32x4"
    student: str = "resnet8x4"
    batch_size: int = 16
    channels: int = 3
    size: int = 32
    classes: int = 100

    def __str__(self) -> str:
        images = f"{self.channels}x{self.size}x{self.size}"
        return (
            f"{self.teacher} -> {self.student}, KD, batch {self.batch_size}, {images}, "
            f"{self.classes} classes"
        )


@dataclass(frozen=True)
class CoreSplit:
    """A use of the cores: ``workers`` processes with ``threads`` threads each, and a precision."""

    workers: int = 1
    threads: int = 1
    precision: Precision = "fp32"


def core_splits(cores: int) -> list[CoreSplit]:
    """Return the splits to measure: all cores with 1, 2, 4, ... threads per worker; half; one."""
    threads = {2**k for k in range(cores.bit_length()) if 2**k <= cores} | {cores}
    splits = [CoreSplit(cores // n, n) for n in sorted(threads)]
    # Half of the cores, since two may be threads of one core, or share memory bandwidth.
    return list(dict.fromkeys([*splits, CoreSplit(max(1, cores // 2)), CoreSplit()]))


def measure(
    workload: Workload,
    splits: Sequence[CoreSplit],
    *,
    rounds: int = ROUNDS,
    seconds: float | None = None,
    device: str = "cpu",
) -> dict[CoreSplit, list[float]]:
    """Measure the steps per second of each core split, all its processes together, in each round.

    Args:
        workload: the training to measure.
        splits: the core splits.
        rounds: measurements of each split.
        seconds: duration of a measurement; None: chosen so that all take about a minute.
        device: device to train on.

    Raises:
        UserError: a process died.
    """
    order = [split for i in range(rounds) for split in (splits if i % 2 == 0 else splits[::-1])]
    seconds = seconds or SECONDS / len(order)
    context = multiprocessing.get_context("spawn")
    n = max(split.workers for split in splits)
    barrier, processes, pending = context.Barrier(n), [], []
    try:
        for number in range(n):
            receiver, sender = context.Pipe(duplex=False)
            args = (workload, order, seconds, device, number, barrier, sender)
            processes.append(context.Process(target=_process, args=args, daemon=True))
            processes[-1].start()
            sender.close()  # so that the pipe ends if the process dies
            pending.append(receiver)
        rates_of_processes = []
        while pending:
            for ready in connection.wait(pending):
                assert isinstance(ready, Connection)
                pending.remove(ready)
                rates_of_processes.append(ready.recv())
    except EOFError:
        raise UserError(f"measuring: one of {n} processes died; is memory short?") from None
    finally:
        for process in processes:
            process.terminate()
            process.join()
    rates: dict[CoreSplit, list[float]] = {split: [] for split in splits}
    for split, of_processes in zip(order, zip(*rates_of_processes, strict=True), strict=True):
        rates[split].append(sum(of_processes))
    return rates


def _process(
    workload: Workload,
    order: Sequence[CoreSplit],
    seconds: float,
    device: str,
    number: int,
    barrier: Barrier,
    sender: Connection,
) -> None:
    """Measure in one of the processes, which idles in splits with fewer workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    keep_memory()
    where = torch.device(device)
    prepare(where)  # before the device is first used
    precisions = {split.precision for split in order if number < split.workers}
    steps = {name: make_step(workload, name, where) for name in sorted(precisions)}
    rates = []
    for split in order:
        takes_part = number < split.workers
        barrier.wait(PATIENCE)
        if takes_part:
            torch.set_num_threads(split.threads)
            prepare(where, split.precision)
            steps[split.precision]()
        barrier.wait(PATIENCE)
        rates.append(_rate(steps[split.precision], seconds) if takes_part else 0.0)
    sender.send(rates)


def _rate(step: Step, seconds: float) -> float:
    """Return steps per second, of steps that end in time; later, other processes may be idle."""
    began = time.perf_counter()
    ends: list[float] = []
    while len(ends) < MIN_STEPS or ends[-1] - began < seconds:
        step()
        ends.append(time.perf_counter())
    counted = [end for end in ends if end - began <= seconds]
    counted = counted if len(counted) >= MIN_STEPS else ends[:MIN_STEPS]
    return len(counted) / (counted[-1] - began)


def make_step(workload: Workload, precision: Precision, device: torch.device) -> Step:
    """Return a function that does the teacher's forward and KD's training step on one batch."""
    torch.manual_seed(0)
    network = zoo.create(
        workload.teacher, num_classes=workload.classes, in_channels=workload.channels
    )
    images = torch.randn(workload.batch_size, workload.channels, workload.size, workload.size)
    with torch.no_grad():
        network.train()(images)  # adapts batch norms to noise, so that no activation explodes
    network.eval().requires_grad_(False)
    fast = folded(network).to(device).to(memory_format=torch.channels_last)
    teacher = LoadedTeacher(network, fast, None, "")
    training = Training(batch_size=workload.batch_size, lr=1e-4, precision=precision)
    run = Run(
        student=workload.student,
        teacher=Teacher(workload.teacher, "0" * 16),
        dataset=Dataset(name="synthetic"),
        training=training,
        gamma=1.0,
        alpha=1.0,
        temperature=4.0,
        terms=(),
        seed=0,
    )
    labels = torch.randint(workload.classes, (4 * workload.batch_size,))
    learner = Learner(
        run,
        num_classes=workload.classes,
        in_channels=workload.channels,
        size=workload.size,
        train_labels=labels,
        teacher=dry_run(network, workload.channels, workload.size),
        teacher_head=teacher.head(),
        teacher_network=teacher.network,
        device=device,
    )
    images = images.to(device).to(memory_format=torch.channels_last)
    index = torch.arange(workload.batch_size, device=device)
    labels = labels[: workload.batch_size].to(device)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            t = teacher(images)
        learner.train_step(images, labels, index, t)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step
