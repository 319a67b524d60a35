"""Records the operations of training steps, to check what a GPU would be asked to do."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from benchmarks.subjects import noise
from kdbench.data.batches import train_batches
from kdbench.data.dataset import LoadedData
from kdbench.device_forms import gpu_forms
from kdbench.grid.run import Run, Teacher, Term
from kdbench.grid.settings import Dataset, Training
from kdbench.method import Features
from kdbench.models import zoo
from kdbench.models.network import Network
from kdbench.registry import lookup
from kdbench.training.build import dry_run
from kdbench.training.learner import Learner

BATCH, CLASSES = 8, 10


class Operation(NamedTuple):
    """An operation, its arguments without the tensors' values, and the types of its tensors."""

    name: str
    arguments: tuple[Any, ...]
    dtypes: tuple[torch.dtype, ...]


class Recorder(TorchDispatchMode):
    """Records every operation, of forward and backward pass, while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "profiler":  # marks of the optimiser, with a new handle each
            return func(*args, **(kwargs or {}))
        flat = tree_flatten((args, kwargs or {}))[0]
        tensors = tuple(x.dtype for x in flat if isinstance(x, Tensor))
        self.operations.append(Operation(str(func), tuple(map(described, flat)), tensors))
        return func(*args, **(kwargs or {}))


def described(argument: Any) -> Any:
    """Return a tensor's shape and strides, and other arguments as they are printed."""
    if isinstance(argument, Tensor):
        return tuple(argument.shape), argument.stride()
    return "" if isinstance(argument, torch.Generator) else repr(argument)


def difference(a: list[Operation], b: list[Operation]) -> str:
    """Return the first two operations that differ, or "" if all are the same."""
    if len(a) != len(b):
        return f"{len(a)} and {len(b)} operations"
    return next((f"{x}\n{y}" for x, y in zip(a, b, strict=True) if x != y), "")


@cache
def data() -> LoadedData:
    """Return a data set of noise."""
    return noise(100, CLASSES)


@cache
def network(arch: str) -> Network:
    """Return an untrained teacher in evaluation mode."""
    torch.manual_seed(1)
    return zoo.create(arch, num_classes=CLASSES).eval().requires_grad_(False)


def learner(name: str, hyper: dict[str, Any], teacher: str, student: str) -> Learner:
    """Return a learner of a method with these hyper-parameters, in its first phase.

    Raises:
        Incompatible: the method cannot work on this pair.
    """
    about = lookup.describe(name)
    guided = about.needs_teacher_with(hyper)
    run = Run(
        student=student,
        teacher=Teacher(teacher, "0" * 16) if guided else None,
        dataset=Dataset(name="cifar10"),
        training=Training(batch_size=BATCH, lr=1e-4),
        gamma=about.objective.get("gamma", 1.0),
        alpha=about.objective.get("alpha", 1.0) if guided else 0.0,
        temperature=4.0,
        terms=(Term(name, about.beta, about.hyper | hyper),),
        seed=0,
        pretrain=(1, 1e-4) if about.has_pretrain else None,
    )
    return Learner(
        run,
        num_classes=CLASSES,
        in_channels=3,
        size=32,
        train_labels=data().train_labels,
        teacher=dry_run(network(teacher), 3, 32) if guided else None,
        teacher_head=network(teacher).head if guided else None,
        teacher_network=network(teacher) if guided else None,
        device=torch.device("cpu"),
    )


@torch.no_grad()
def seen(teacher: nn.Module, images: Tensor, *views: Tensor) -> Features:
    """Return a teacher's features of images, with those of other views of them."""
    first, *others = (teacher(x) for x in (images, *views))
    return replace(first, views=tuple(others))


def steps(one: Learner, teacher: str, number: int) -> Iterator[list[Operation]]:
    """Take steps in the form for GPUs, and yield the operations of each."""
    given = train_batches(data(), batch_size=BATCH, seed=0, epoch=1, crop_pad=4, flip=True)
    for _, (images, labels, index) in zip(range(number), given, strict=False):
        views = [images.flip(3)] * (one.views - 1)
        t = seen(network(teacher), images, *views) if one.needs_teacher else None
        with gpu_forms(), Recorder() as recorder:
            one.train_step(images, labels, index, t, *views)
        yield recorder.operations
