"""Processes that are ranks, and what each of them does, for tests."""

import multiprocessing
import os
import socket
from collections.abc import Callable, Sequence
from itertools import islice
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from lines import CPU, TRAINING, alone, data, stop_after, taught
from torch import Tensor, nn
from variants import ALL, label

from kdbench import models, ranks
from kdbench.batch_norm import convert
from kdbench.batches import eval_batches, train_batches
from kdbench.build import dry_run
from kdbench.grid import Executor
from kdbench.jobs import Work, work
from kdbench.learner import Learner
from kdbench.method import Features
from kdbench.ranks import RankLost, World
from kdbench.run import Run
from kdbench.scene import each, tensors

LOST = 9
"""Exit code of a rank that has lost another."""


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
        about = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size}
        about |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
        process = context.Process(target=_rank, args=(about, seconds, target, args))
        process.start()
        processes.append(process)
    return processes


def _rank(
    about: dict[str, Any], seconds: float, target: Callable[..., None], args: Sequence[Any]
) -> None:
    os.environ.update({key: str(value) for key, value in about.items()})
    torch.set_num_threads(1)
    try:
        with ranks.joined("cpu", seconds) as world:
            target(world, *args)
    except RankLost:
        os._exit(LOST)


def together(size: int, target: Callable[..., None], *args: Any) -> None:
    """Run ``target`` on all ranks to its end."""
    processes = start(size, target, *args)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * size


# --- the steps of every method ---------------------------------------------------------------

PAIRS = (("r14w3", "r8w3"), ("r8w5", "v5w4"))
"""Equal channels and other depths; other channels, sizes and kinds."""

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


def lessons(world: World, folder: Path) -> None:
    """Take a few steps with every method, and leave what they gave in ``folder``."""
    path = folder / "draws.py"
    if world.first:
        path.write_text(DRAWS.lstrip())
    world.any(False)
    found = {"norm": normalise(world), "gather": gathered(world)}
    for large, small in PAIRS:
        for name, hyper in [*ALL, (str(path), {})]:
            title = f"{label(Path(name).stem, hyper)} {large} {small}"
            found[title] = lesson(world, large, small, name, hyper)
    torch.save(found, folder / f"{world.size}-{world.rank}.pt")


def lesson(world: World, large: str, small: str, name: str, hyper: dict[str, Any]) -> Any:
    """Losses, gradients and all state of three steps a phase, in float64."""
    run = taught(alone(student=large), name, student=small, hyper=hyper)
    torch.manual_seed(1)
    teacher = models.create(large, num_classes=10, in_channels=1)
    some = data()
    try:
        learner = Learner(
            run,
            num_classes=10,
            in_channels=1,
            size=8,
            train_labels=some.train_labels,
            teacher=dry_run(teacher, 1, 8),
            teacher_head=teacher.head.requires_grad_(False),
            device=CPU,
            world=world,
        )
    except Exception as error:
        return str(error)
    learner.student.double()
    learner.methods.double()
    teacher.double().eval().requires_grad_(False)
    seen: dict[str, Any] = {"losses": [], "gradients": []}
    loss = learner._loss

    def heard(*args: Any) -> Tensor:
        value = loss(*args)
        seen["losses"].append(value.detach())
        return value

    def look(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        of = [p for group in optimizer.param_groups for p in group["params"]]
        seen["gradients"].append([p.grad.clone() for p in of if p.grad is not None])

    learner._loss = heard  # type: ignore[method-assign]
    while learner.phase != "end":
        learner.optimizer.register_step_pre_hook(look)
        phase = learner.phase
        batches = train_batches(
            some, batch_size=16, seed=0, epoch=1, purpose=phase, dtype=torch.float64
        )
        for images, labels, index in islice(batches, 3):
            with torch.no_grad():
                t = world.gather(teacher(images[world.rows(16)]))
            learner.train_step(images, labels, index, t)
        seen[f"hits {phase}"] = learner.hits
        while learner.phase == phase:
            learner.next_epoch()
    test = some.test_images[:30], some.test_labels[:30]
    shard = {"rank": world.rank, "ranks": world.size}
    seen["test"] = learner.evaluate(eval_batches(*test, some, 8, dtype=torch.float64, **shard))  # type: ignore[arg-type]
    seen["model"] = learner.student.state_dict()
    seen["methods"] = learner.methods.state_dict()
    return seen


def of_one(x: Tensor) -> Features:
    """Features that are all one tensor."""
    return Features(x, (x,), (x,), x, x)


def normalise(world: World) -> Any:
    """Two training steps and a test of batch norms, on this rank's rows of eight samples."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(60, momentum=None)
    ).double()
    convert(net, world)
    seen: list[Any] = []
    for step in range(2):
        x = (torch.randn(8, 3, 4, 5, dtype=torch.float64) * 3 + 50)[world.rows(8)]
        x.requires_grad_()
        whole = world.gather(of_one(net(x))).logits
        net.zero_grad()
        loss = (whole.cos() * torch.arange(len(whole))[:, None]).sum()
        loss.backward(torch.full_like(loss, 1 / world.size))
        world.sum_gradients(net.parameters())
        assert x.grad is not None
        slope = world.concatenated(x.grad) if world.size > 1 else x.grad
        seen += [step, whole.detach(), slope, *(p.grad.clone() for p in net.parameters())]
    half = nn.BatchNorm2d(3)
    shell = nn.Sequential(half)
    convert(shell, world)
    x = torch.randn(8, 3, 4, 4).bfloat16().to(memory_format=torch.channels_last)
    y = shell(x[world.rows(8)])
    seen += [y.dtype, world.gather(of_one(y)).logits.detach().float()]
    return [seen, net.state_dict(), shell.state_dict(), net.eval()(torch.ones(2, 3, 4, 5).double())]


def gathered(world: World) -> Any:
    """What features of several types and memory orders look like when gathered."""
    torch.manual_seed(0)
    maps = torch.randn(6, 3, 4, 5)
    last = maps.to(memory_format=torch.channels_last)
    made = Features(maps, (last, maps.double()), (last, last.bfloat16()), maps[:, 0, 0], maps[:, 1])
    got = world.gather(each(made, lambda x: x[world.rows(6)]))
    values = tensors(got)
    order = [x.is_contiguous(memory_format=torch.channels_last) for x in values.values() if x.dim() == 4]
    return [values, order]
