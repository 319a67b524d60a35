"""Learners, teachers and data sets of noise, for the benchmarks of training."""

import os
import platform
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kdbench.data.dataset import LoadedData, statistics
from kdbench.grid.dataset_facts import DATASETS
from kdbench.grid.run import Run, Teacher, Term
from kdbench.grid.settings import Dataset, Training
from kdbench.method import Features
from kdbench.models import zoo
from kdbench.models.fold_batch_norm import folded
from kdbench.registry import lookup
from kdbench.training.build import dry_run
from kdbench.training.learner import Learner
from kdbench.training.teacher import LoadedTeacher

TEACHER, STUDENT = "resnet32x4", "resnet8x4"
CLASSES = 100


def noise(n: int, classes: int = 10, size: int = 32) -> LoadedData:
    """Return a data set of n random images like CIFAR's."""
    stream = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8, generator=stream)
    labels = torch.arange(n) % classes
    names = tuple(str(i) for i in range(classes))
    mean, std = DATASETS["cifar10"].mean_std or statistics(images)
    test = images[: max(1, n // 10)], labels[: max(1, n // 10)]
    return LoadedData("cifar10", "noise", names, images, labels, *test, None, None, mean, std, "")


def teacher(
    data: LoadedData, arch: str = TEACHER, device: torch.device | str = "cpu"
) -> LoadedTeacher:
    """Return an untrained teacher, prepared as by the engine; its batch norms have seen noise."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(1)
        network = zoo.create(arch, num_classes=data.num_classes, in_channels=data.channels)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
        with torch.no_grad():
            network(torch.randn(64, data.channels, data.size, data.size))
    fast = folded(network.eval()).to(device).to(memory_format=torch.channels_last)
    return LoadedTeacher(network, fast, None, "")


def learner(
    method: str,
    data: LoadedData,
    loaded: LoadedTeacher | None,
    precision: str = "fp32",
    *,
    student: str = STUDENT,
    pretrain: bool = False,
    batch_size: int = 64,
    compiled: bool = False,
) -> Learner:
    """Return a learner of a method with its default weight, and with KD's term if it has a teacher.

    Args:
        method: name of the method.
        data: data set to train on.
        loaded: the teacher.
        precision: "fp32" or "bf16".
        student: architecture of the student.
        pretrain: begin with the method's pretraining phase, if it has one.
        batch_size: number of images in a batch.
        compiled: train through ``torch.compile``.
    """
    about = lookup.describe(method)
    run = Run(
        student=student,
        teacher=Teacher(TEACHER, "0" * 16) if about.needs_teacher else None,
        dataset=Dataset(name="cifar100"),
        training=Training(
            batch_size=batch_size,
            lr=1e-4,
            precision=precision,  # type: ignore[arg-type]
            compile=compiled,
        ),
        gamma=about.objective.get("gamma", 1.0),
        alpha=about.objective.get("alpha", 1.0) if about.needs_teacher else 0.0,
        temperature=4.0,
        terms=(Term(method, about.beta, about.hyper),),
        seed=0,
        pretrain=(1, 1e-4) if pretrain and about.has_pretrain else None,
    )
    guided = loaded is not None and about.needs_teacher
    return Learner(
        run,
        num_classes=data.num_classes,
        in_channels=data.channels,
        size=data.size,
        train_labels=data.train_labels,
        teacher=dry_run(loaded.network, data.channels, data.size) if loaded and guided else None,
        teacher_head=loaded.head() if loaded and guided else None,
        teacher_network=loaded.network if loaded and guided else None,
        device=torch.device("cpu"),
    )


def machine() -> dict[str, Any]:
    """Return the properties of the machine that a figure depends on."""
    capable = torch.cpu.get_capabilities()
    return {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "amx": bool(capable.get("amx_bf16")),
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
    }


def seen(
    one: Learner, images: Tensor, ask: Callable[[Tensor], Features]
) -> tuple[Features | None, *tuple[Tensor, ...]]:
    """Return a teacher's features of images as a learner needs them, and mirror images as views.

    Args:
        one: the learner.
        images: [B, C, H, W].
        ask: the teacher.
    """
    views = (images.flip(3),) * (one.views - 1)
    if not one.needs_teacher:
        return None, *views
    return replace(ask(images), views=tuple(map(ask, views))), *views
