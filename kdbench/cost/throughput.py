"""Training steps per second of this machine, by how its cores are used and by precision.

A small cohort, KD alone under its teacher, is trained on noise. The processes of a way to use the
cores really run at once: all wait for each other, then count the steps that end within the same
seconds. Ways take turns, forwards and backwards.
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
from kdbench.training.learner import Learner
from kdbench.training.memory import keep_memory
from kdbench.training.teacher import LoadedTeacher

ROUNDS = 3
SECONDS = 36.0
"""Of measuring, all ways and rounds together; starting and warming up come on top."""
LEAST_STEPS = 2
"""In a way's seconds, however slow a step is."""
PATIENCE = 300.0
"""Seconds after which a process gives up waiting for the others."""

Step = Callable[[], None]


@dataclass(frozen=True)
class Workload:
    """What is trained: a pair, images [batch_size, channels, size, size], K classes."""

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
    """A way to train, without a figure."""

    workers: int = 1
    threads: int = 1
    precision: Literal["fp32", "bf16"] = "fp32"


def ways(cores: int) -> list[CoreSplit]:
    """Ways to use cores: all of them by 1, 2, 4, ... threads a worker; half of them; one."""
    threads = {2**k for k in range(cores.bit_length()) if 2**k <= cores} | {cores}
    slots = [CoreSplit(cores // n, n) for n in sorted(threads)]
    # Two cores may be one core's two threads, or share its way to memory.
    return list(dict.fromkeys([*slots, CoreSplit(max(1, cores // 2)), CoreSplit()]))


def measure(
    subject: Workload,
    slots: Sequence[CoreSplit],
    *,
    rounds: int = ROUNDS,
    seconds: float | None = None,
    device: str = "cpu",
) -> dict[CoreSplit, list[float]]:
    """Steps per second of every way, all its processes together, a figure a round.

    Args:
        subject: what to train. slots: the ways. device: where.
        seconds: that a way is measured for in a round; None: such that all takes a minute or so.

    Raises:
        UserError: a process died.
    """
    order = [slot for i in range(rounds) for slot in (slots if i % 2 == 0 else slots[::-1])]
    seconds = seconds or SECONDS / len(order)
    context = multiprocessing.get_context("spawn")
    n = max(slot.workers for slot in slots)
    barrier, processes, pending = context.Barrier(n), [], []
    try:
        for number in range(n):
            receiver, sender = context.Pipe(duplex=False)
            args = (subject, order, seconds, device, number, barrier, sender)
            processes.append(context.Process(target=_process, args=args, daemon=True))
            processes[-1].start()
            sender.close()  # so that a process that dies ends its pipe
            pending.append(receiver)
        found = []
        while pending:
            for ready in connection.wait(pending):
                assert isinstance(ready, Connection)
                pending.remove(ready)
                found.append(ready.recv())
    except EOFError:
        raise UserError(f"measuring: one of {n} processes died; is memory short?") from None
    finally:
        for process in processes:
            process.terminate()
            process.join()
    out: dict[CoreSplit, list[float]] = {slot: [] for slot in slots}
    for slot, rates in zip(order, zip(*found, strict=True), strict=True):
        out[slot].append(sum(rates))
    return out


def _process(
    subject: Workload,
    order: Sequence[CoreSplit],
    seconds: float,
    device: str,
    number: int,
    barrier: Barrier,
    sender: Connection,
) -> None:
    """One of the processes: takes part in the ways that need so many."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    keep_memory()
    mine = {slot.precision for slot in order if number < slot.workers}
    steps = {name: stepper(subject, name, torch.device(device)) for name in sorted(mine)}
    rates = []
    for slot in order:
        takes_part = number < slot.workers
        barrier.wait(PATIENCE)
        if takes_part:
            torch.set_num_threads(slot.threads)
            steps[slot.precision]()
        barrier.wait(PATIENCE)
        rates.append(_rate(steps[slot.precision], seconds) if takes_part else 0.0)
    sender.send(rates)


def _rate(step: Step, seconds: float) -> float:
    """Steps per second, of those that end in time: after that other processes may have stopped."""
    began = time.perf_counter()
    ends: list[float] = []
    while len(ends) < LEAST_STEPS or ends[-1] - began < seconds:
        step()
        ends.append(time.perf_counter())
    counted = [end for end in ends if end - began <= seconds]
    counted = counted if len(counted) >= LEAST_STEPS else ends[:LEAST_STEPS]
    return len(counted) / (counted[-1] - began)


def stepper(subject: Workload, precision: Literal["fp32", "bf16"], device: torch.device) -> Step:
    """What makes one step of the cohort: the teacher's forward, then KD's step, on one batch."""
    torch.manual_seed(0)
    network = zoo.create(subject.teacher, num_classes=subject.classes, in_channels=subject.channels)
    images = torch.randn(subject.batch_size, subject.channels, subject.size, subject.size)
    with torch.no_grad():
        network.train()(images)  # its batch norms see noise: no activation explodes
    network.eval().requires_grad_(False)
    fast = folded(network).to(device).to(memory_format=torch.channels_last)
    teacher = LoadedTeacher(network, fast, None, "")
    training = Training(batch_size=subject.batch_size, lr=1e-4, precision=precision)
    run = Run(
        student=subject.student,
        teacher=Teacher(subject.teacher, "0" * 16),
        dataset=Dataset(name="synthetic"),
        training=training,
        gamma=1.0,
        alpha=1.0,
        temperature=4.0,
        terms=(),
        seed=0,
    )
    labels = torch.randint(subject.classes, (4 * subject.batch_size,))
    learner = Learner(
        run,
        num_classes=subject.classes,
        in_channels=subject.channels,
        size=subject.size,
        train_labels=labels,
        teacher=dry_run(network, subject.channels, subject.size),
        teacher_head=teacher.head(),
        device=device,
    )
    images = images.to(device).to(memory_format=torch.channels_last)
    index = torch.arange(subject.batch_size, device=device)
    labels = labels[: subject.batch_size].to(device)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            t = teacher(images)
        learner.train_step(images, labels, index, t)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step
