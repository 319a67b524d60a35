"""Processes that act as ranks, and the work that each does, for tests."""

import copy
import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from method_variants import label
from step_operations import seen
from tiny_runs import CPU, TRAINING, alone, data, stop_after, taught
from torch import Tensor, nn

from kdbench.data.batches import eval_batches, train_batches
from kdbench.execution.work import JobError, Work
from kdbench.execution.worker import Worker
from kdbench.grid.grid import Executor
from kdbench.grid.run import Run
from kdbench.grid.settings import Training
from kdbench.method import Features, Incompatible
from kdbench.models import zoo
from kdbench.training import ranks
from kdbench.training.build import dry_run
from kdbench.training.global_batch_norm import convert
from kdbench.training.learner import Learner
from kdbench.training.objective import Loss
from kdbench.training.ranks import RankLost, World

LOST = 9
"""Exit code of a rank that has lost another rank."""


def start(
    size: int, target: Callable[..., None], *args: Any, seconds: float = 60.0
) -> list[BaseProcess]:
    """Start ``target(world, *args)`` on each of several ranks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    processes: list[BaseProcess] = []
    for rank in range(size):
        variables: dict[str, Any] = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size}
        variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
        process = context.Process(
            target=_rank, args=(variables, seconds, target, args), daemon=True
        )
        process.start()
        processes.append(process)
    return processes


def _rank(
    variables: dict[str, Any], seconds: float, target: Callable[..., None], args: Sequence[Any]
) -> None:
    os.environ.update({key: str(value) for key, value in variables.items()})
    torch.set_num_threads(1)
    try:
        with ranks.join_ranks("cpu", seconds) as world:
            target(world, *args)
    except RankLost:
        os._exit(LOST)
    os._exit(0)  # as a job does, because gloo's threads may outlive the interpreter and abort it


def together(size: int, target: Callable[..., None], *args: Any) -> None:
    """Run ``target`` on all ranks to its end."""
    processes = start(size, target, *args)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * size


# --- the steps of every method ---------------------------------------------------------------

PAIRS = (("v8w4", "v5w4"), ("r8w5", "r8w3"))
"""Equal channels, which some methods need; unequal channels, with batch norms everywhere."""

DRAWS = '''
"""A method that draws as it likes, and looks at all of a batch (2020)."""
import torch
from kdbench.method import Method


class Draws(Method):
    def __init__(self, setup):
        super().__init__(setup)
        self.weight = torch.nn.Parameter(torch.randn(10))

    def pretrain(self, student):
        self.heads = [student.head]
        return []

    def loss(self, s, t, batch):
        noise = torch.rand(len(s.logits), 1, dtype=s.logits.dtype)
        own = self.heads[0](s.embedding.flip(0))  # the student's module, on the global batch
        seen = batch.images.mean((1, 2, 3))[:, None]
        return ((s.logits * self.weight + own * seen) * noise).square().mean()
'''


Chosen = Sequence[tuple[int, str, dict[str, Any]]]
"""Index into ``PAIRS``, method, hyper-parameters."""


def lessons(world: World, folder: Path, chosen: Chosen, training: Training = TRAINING) -> None:
    """Take a few steps with each method, and save the results in ``folder``."""
    path = folder / "draws.py"
    if world.first:
        path.write_text(DRAWS.lstrip())
    world.any_rank(False)
    results = {"norm": normalise(world), "gather": gathered(world)}
    for pair, name, hyper in [*chosen, (0, str(path), {})]:
        large, small = PAIRS[pair]
        title = f"{label(Path(name).stem, hyper)} {large} {small}"
        results[title] = lesson(world, large, small, name, hyper, training)
    torch.save(results, folder / f"{world.size}-{world.rank}.pt")


def repeated(self: World, x: Tensor) -> Tensor:
    """Replace ``World.concatenated``: repeat this rank's rows instead of gathering all rows."""
    return torch.cat([x.detach()] * self.size)


MISTAKES: dict[str, tuple[str, Any]] = {
    "no gather": ("kdbench.training.ranks.World.concatenated", repeated),
    "no common batch norm": ("kdbench.training.learner.convert", lambda student, world: None),
    "no sum of gradients": (
        "kdbench.training.ranks.World.sum_gradients",
        lambda world, parameters: None,
    ),
}
"""Steps that ranks could omit: name -> (function, its replacement)."""


def mistaken_lessons(world: World, folder: Path, chosen: Chosen) -> None:
    """Run ``lessons`` in ``folder/MISTAKE`` with each of ``MISTAKES``."""
    for name, (target, replacement) in MISTAKES.items():
        with patch(target, replacement):
            lessons(world, folder / name, chosen)


def lesson(
    world: World,
    large: str,
    small: str,
    name: str,
    hyper: dict[str, Any],
    training: Training,
) -> Any:
    """Return losses, gradients and all state of three steps per phase, in float64."""
    run = taught(alone(student=large), name, student=small, hyper=hyper, training=training)
    torch.manual_seed(1)
    teacher = zoo.create(large, num_classes=10, in_channels=1)
    loaded = data()
    try:
        learner = Learner(
            run,
            num_classes=10,
            in_channels=1,
            size=8,
            train_labels=loaded.train_labels,
            teacher=dry_run(teacher, 1, 8),
            teacher_head=teacher.head.requires_grad_(False),
            teacher_network=teacher,
            device=CPU,
            world=world,
        )
    except Incompatible as error:
        return str(error)
    learner.student.double()
    learner.methods.double()
    teacher.double().eval().requires_grad_(False)
    results: dict[str, Any] = {"losses": [], "gradients": []}
    loss = learner._loss

    def recorded_loss(*args: Any) -> Loss:
        value = loss(*args)
        results["losses"].append(value.total.detach())
        return value

    def record_gradients(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        results["gradients"].append([p.grad.clone() for p in parameters if p.grad is not None])

    learner.__dict__["_loss"] = recorded_loss
    while learner.phase != "end":
        learner.optimizer.register_step_pre_hook(record_gradients)
        phase = learner.phase
        batches = train_batches(
            loaded, batch_size=16, seed=0, epoch=1, purpose=phase, dtype=torch.float64
        )
        for images, labels, index in islice(batches, 3):
            views = [images.flip(3)] * (learner.views - 1)
            mine = (x[world.rows(16)] for x in (images, *views))
            t = world.gather(seen(teacher, *mine))
            learner.train_step(images, labels, index, t, *views)
        results[f"hits {phase}"] = learner.sums.correct
        while learner.phase == phase:
            learner.next_epoch()
    test = loaded.test_images[:30], loaded.test_labels[:30]
    shard = {"rank": world.rank, "ranks": world.size}
    results["test"] = learner.evaluate(eval_batches(*test, loaded, 8, dtype=torch.float64, **shard))  # type: ignore[arg-type]
    results["model"] = learner.student.state_dict()
    results["methods"] = learner.methods.state_dict()
    return results


def uniform_features(x: Tensor) -> Features:
    """Return features that are all the same tensor."""
    return Features(x, (x,), (x,), x, x)


def normalise(world: World) -> Any:
    """Run two training steps and a test of batch norms, on this rank's rows of eight samples."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(60, momentum=None)
    ).double()
    convert(net, world)
    net = copy.deepcopy(net)  # as a method may do with a student
    results: list[Any] = []
    for step in range(2):
        x = (torch.randn(8, 3, 4, 5, dtype=torch.float64) * 3 + 50)[world.rows(8)]
        x.requires_grad_()
        logits = world.gather(uniform_features(net(x))).logits
        net.zero_grad()
        loss = (logits.cos() * torch.arange(len(logits))[:, None]).sum()
        loss.backward(torch.full_like(loss, 1 / world.size))
        world.sum_gradients(net.parameters())
        assert x.grad is not None
        slope = world.concatenated(x.grad) if world.size > 1 else x.grad
        results += [
            step,
            logits.detach(),
            slope,
            *(p.grad.clone() for p in net.parameters() if p.grad is not None),
        ]
    half = nn.BatchNorm2d(3)
    shell = nn.Sequential(half)
    convert(shell, world)
    x = torch.randn(8, 3, 4, 4).bfloat16().to(memory_format=torch.channels_last)
    y = shell(x[world.rows(8)])
    results += [y.dtype, world.gather(uniform_features(y)).logits.detach().float()]
    test = net.eval()(torch.ones(2, 3, 4, 5).double()).detach()
    return [results, net.state_dict(), shell.state_dict(), test]


def gathered(world: World) -> Any:
    """Gather features of several types and memory orders."""
    torch.manual_seed(0)
    maps = torch.randn(6, 3, 4, 5)
    last = maps.to(memory_format=torch.channels_last)
    made = Features(maps, (last, maps.double()), (last, last.bfloat16()), maps[:, 0, 0], maps[:, 1])
    features = world.gather(made.map(lambda x: x[world.rows(6)]))
    values = dict(features.named())
    channels = [
        x.is_contiguous(memory_format=torch.channels_last) for x in values.values() if x.dim() == 4
    ]
    return [values, channels]


# --- whole runs ------------------------------------------------------------------------------

RAISES = '''
"""A method that raises in its sixth step, on some ranks (2020)."""
import os
from kdbench.method import Method


class Raises(Method):
    def __init__(self, setup, *, ranks="01"):
        super().__init__(setup)
        self.ranks = ranks

    def loss(self, s, t, batch):
        if batch.step == 5 and os.environ.get("RANK", "0") in self.ranks:
            raise RuntimeError("a bug in step 5")
        return s.logits.square().mean()
'''

ENDS = '''
"""A method that ends one of two ranks in its seventh step, or stops answering (2020)."""
import os
import signal
import time
from kdbench.method import Method


class Ends(Method):
    def __init__(self, setup, *, rank="0", how="kill"):
        super().__init__(setup)
        self.rank, self.how = rank, how

    def loss(self, s, t, batch):
        if batch.step == 6 and os.environ.get("RANK") == self.rank:
            os.kill(os.getpid(), signal.SIGKILL if self.how == "kill" else signal.SIGSTOP)
        return s.logits.square().mean()
'''

EXECUTOR = Executor(kind="debug", device="cpu", ranks=2)


DIGITS = 1e-9
"""Largest allowed difference of float64 weights after a run, relative to the largest entry."""


@contextmanager
def float64() -> Iterator[None]:
    """Train whole runs in float64.

    Training amplifies rounding. After twelve steps in float32, two runs that only sum in a
    different order differ in the third digit, on some processors in the second. In float64 the same
    amplification leaves nine equal digits, so a tolerance can separate rounding from mistakes.
    """
    train_wide = partial(train_batches, dtype=torch.float64)
    eval_wide = partial(eval_batches, dtype=torch.float64)
    torch.set_default_dtype(torch.float64)
    try:
        with (
            patch("kdbench.training.steps.train_batches", train_wide),
            patch("kdbench.training.cohort.eval_batches", eval_wide),
        ):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


@float64()
def train(
    world: World, runs: Sequence[Run], folder: Path, stop_at: int = 0, every: float = 60.0
) -> None:
    """Train runs as a worker does, but in float64.

    Args:
        stop_at: step after which the last rank asks to stop; 0: never.
        every: seconds between checkpoints.
    """
    stop = stop_after(stop_at) if stop_at and world.rank == world.size - 1 else lambda: False
    executor = EXECUTOR.model_copy(update={"checkpoint_seconds": every})
    task = Work((tuple(runs),), folder, Path("data"), executor)

    def report(beats: object, line: str) -> None:
        if line:
            with (folder / "reported.txt").open("a") as file:
                file.write(f"{line}\n")

    Worker(task, 0, stop, report, world).run()


def train_each(world: World, jobs: Sequence[tuple[Any, ...]]) -> None:
    """Run ``train`` for each of ``jobs``: runs, folder, step to stop at."""
    for runs, folder, stop_at in jobs:
        try:
            train(world, runs, folder, stop_at=stop_at)
        except JobError as error:
            (folder / f"error-{world.rank}.txt").write_text(str(error))
