"""A run's networks and methods before the first step, and the shapes of a network's features."""

from collections.abc import Sequence
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from kdbench.grid.run import Run
from kdbench.method import Features, Group, Method, Setup
from kdbench.models import upper_part, zoo
from kdbench.models.network import Network
from kdbench.models.network_parts import frozen_norms, live_head
from kdbench.models.peers import Peers, networks
from kdbench.models.pointwise import replace_strided_pointwise
from kdbench.registry import lookup
from kdbench.registry.process_state import kept
from kdbench.registry.shared_tensors import of_setup
from kdbench.rng import key

Module = TypeVar("Module", bound=nn.Module)


def build_student(run: Run, *, num_classes: int, in_channels: int) -> Network | Peers:
    """Build a run's network, or the networks that learn together in it (``Method.group``).

    The first of a group is the network that the run would have without one.

    Raises:
        Incompatible: the group shares more stages than the network has.
        ValueError: two methods bring peers, or a plugin's file has changed.
    """
    first = build_network(run, num_classes=num_classes, in_channels=in_channels)
    group = group_of(run)
    if group is None:
        return first
    build = partial(build_network, run, num_classes=num_classes, in_channels=in_channels)
    return Peers([first, *(build(peer=i) for i in range(1, group.size))], group)


def build_network(run: Run, *, num_classes: int, in_channels: int, peer: int = 0) -> Network:
    """Build one network of a run; only its name, the seed and ``peer`` determine the weights.

    Args:
        num_classes: K.
        in_channels: channels of the images.
        peer: number of the network in its group; 0 is the one that is deployed.
    """
    others = ("peer", peer) if peer else ()
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(key(run.seed, "init", run.student, *others))
        return zoo.create(run.student, num_classes=num_classes, in_channels=in_channels)


def group_of(run: Run) -> Group | None:
    """Return the group that one of a run's methods brings; None: the student is one network.

    Raises:
        ValueError: two methods bring peers, or a plugin's file has changed.
    """
    groups: dict[str, Group] = {}
    for term, cls in zip(run.terms, method_classes(run), strict=True):
        with kept(f"{cls.__name__}.group"):
            group = cls.group(**term.hyper)
        if group is not None:
            groups[term.method] = group
    if len(groups) > 1:
        raise ValueError(f"{' and '.join(groups)} both bring peers; expected one of them in a row")
    return next(iter(groups.values()), None)


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
    teacher_network: Network | None = None,
    train_labels: Tensor,
    num_classes: int,
) -> Setup:
    """Return what a run's methods are built from.

    Args:
        student: the network or networks in training.
        student_features: of a dry run.
        teacher_features: of a dry run; None without a teacher. Copied, as are the labels.
        teacher_head: the teacher's classifier, frozen.
        teacher_network: the teacher with its batch norms; None: a method cannot run parts of it.
        train_labels: [N].
        num_classes: K.
    """
    deployed = networks(student)[0]
    return Setup(
        student=student_features,
        teacher=teacher_features.map(torch.clone) if teacher_features else student_features,
        train_labels=train_labels.cpu().clone(),  # on the CPU as the modules, until they move
        batch_size=run.training.batch_size,
        num_classes=num_classes,
        teacher_head=teacher_head,
        seed=run.seed,
        student_head=live_head(deployed),
        teacher_norms=frozen_norms(teacher_network) if teacher_network else (),
        new_student=partial(
            build_network, run, num_classes=num_classes, in_channels=deployed.in_channels
        ),
        teacher_from=upper_part.of_frozen(teacher_network) if teacher_network else None,
        student_from=upper_part.of_live(deployed),
    )


def build_methods(run: Run, setup: Setup) -> list[Method]:
    """Build the methods of a run's terms, each initialised from its own random stream.

    Raises:
        ContractBroken: a method changes what it is built from, or the state of the process.
        Incompatible: a method cannot work on this pair.
        ValueError: a plugin's file has changed since the run's id was computed.
    """
    return built(run, setup, method_classes(run))


def method_classes(run: Run) -> list[type[Method]]:
    """Load the classes of the methods of a run's terms.

    Raises:
        ValueError: a plugin's file has changed since the run's id was computed.
    """
    classes = []
    for term in run.terms:
        if term.source and lookup.describe(term.where).sha256 != term.source:
            raise ValueError(
                f"{term.where}: changed since this run was created; run the grid again"
            )
        classes.append(lookup.load(term.where))
    return classes


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
