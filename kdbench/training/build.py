"""A run's network and methods before the first step, and the shapes of a network's features."""

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from kdbench.grid.run import Run
from kdbench.method import Features, Method, Setup
from kdbench.models import zoo
from kdbench.models.network import Network
from kdbench.models.network_parts import live_head
from kdbench.models.pointwise import replace_strided_pointwise
from kdbench.registry import lookup
from kdbench.registry.process_state import kept
from kdbench.registry.shared_tensors import of_setup
from kdbench.rng import key

Module = TypeVar("Module", bound=nn.Module)


def build_network(run: Run, *, num_classes: int, in_channels: int) -> Network:
    """Build a run's network; only its name and the seed determine the initial weights."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(key(run.seed, "init", run.student))
        return zoo.create(run.student, num_classes=num_classes, in_channels=in_channels)


def dry_run(network: nn.Module, in_channels: int, size: int) -> Features:
    """Return ``Features`` of two images of zeros, for their shapes; the network is unchanged."""
    training = network.training
    network.eval()
    with torch.no_grad():
        features: Features = network(torch.zeros(2, in_channels, size, size))
    network.train(training)
    return features


def build_setup(
    run: Run,
    student: nn.Module,
    student_features: Features,
    teacher_features: Features | None,
    *,
    teacher_head: nn.Module | None,
    teacher_norms: tuple[nn.BatchNorm2d | None, ...] = (),
    train_labels: Tensor,
    num_classes: int,
) -> Setup:
    """Return what a run's methods are built from.

    Args:
        student: the network or networks in training.
        student_features: of a dry run.
        teacher_features: of a dry run; None without a teacher. Copied, as are the labels.
        teacher_head: the teacher's classifier, frozen.
        teacher_norms: batch norms of the teacher's ``preacts``, frozen.
        train_labels: [N].
        num_classes: K.
    """
    return Setup(
        student=student_features,
        teacher=teacher_features.map(torch.clone) if teacher_features else student_features,
        train_labels=train_labels.cpu().clone(),  # on the CPU as the modules, until they move
        batch_size=run.training.batch_size,
        num_classes=num_classes,
        teacher_head=teacher_head,
        seed=run.seed,
        student_head=live_head(student),
        teacher_norms=teacher_norms,
    )


def build_methods(run: Run, setup: Setup) -> list[Method]:
    """Build the methods of a run's terms, each initialised from its own random stream.

    Raises:
        ContractBroken: a method changes what it is built from, or the state of the process.
        Incompatible: a method cannot work on this pair.
        ValueError: a plugin's file has changed since the run's id was computed.
    """
    classes = []
    for term in run.terms:
        if term.source and lookup.describe(term.where).sha256 != term.source:
            raise ValueError(
                f"{term.where}: changed since this run was created; run the grid again"
            )
        classes.append(lookup.load(term.where))
    return built(run, setup, classes)


def built(run: Run, setup: Setup, classes: Sequence[type[Method]]) -> list[Method]:
    """Build the methods of a run's terms from their classes; see ``build_methods``."""
    methods = []
    for term, cls in zip(run.terms, classes, strict=True):
        shared = of_setup(setup)
        with kept(cls.__name__), torch.random.fork_rng(devices=()):
            torch.manual_seed(key(run.seed, "method", term.method))
            method = cls(setup, **term.hyper)
        shared.check(f"{cls.__name__}.__init__")
        methods.append(replace_strided_pointwise(method))
    return methods


def on_device(module: Module, device: torch.device) -> Module:
    """Move a module to a device, and its maps to the engine's memory format; return it."""
    return module.to(device).to(memory_format=torch.channels_last)
