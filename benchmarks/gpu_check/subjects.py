"""Data, teachers, runs and learners of a check, on the device that is checked."""

from dataclasses import replace
from typing import Any

import torch

from benchmarks.gpu_check.check import Check
from benchmarks.gpu_check.sizes import ALONE
from benchmarks.subjects import noise
from benchmarks.subjects import teacher as teacher
from kdbench.data.dataset import LoadedData
from kdbench.grid.run import Run, Teacher, Term
from kdbench.grid.settings import Dataset, Schedule, Training
from kdbench.registry import lookup
from kdbench.training.build import dry_run
from kdbench.training.learner import Learner
from kdbench.training.teacher import LoadedTeacher

NO_RUN = "0" * 16
"""Id of the run that would have trained the teacher."""


def on(data: LoadedData, device: torch.device) -> LoadedData:
    """Return a data set on a device."""
    names = ("train_images", "train_labels", "test_images", "test_labels")
    moved = {name: getattr(data, name).to(device) for name in names}
    return replace(data, **moved, _padded={})


def noise_images(check: Check, images: int) -> LoadedData:
    """Return a data set of random images on the device."""
    return on(noise(images, check.sizes.classes), check.device)


def run(
    method: str,
    pair: tuple[str, str],
    *,
    precision: str = "fp32",
    epochs: int = 240,
    batch: int = 64,
    pretrain: int = 0,
    lr: float = 0.01,
) -> Run:
    """Return a run of a method with its default weight, beside KD's term if it has a teacher.

    Args:
        method: name of the method or path of its file, or "student" for a run without one.
        pair: teacher and student.
        precision: "fp32", "tf32" or "bf16".
        epochs: length of training.
        batch: B.
        pretrain: epochs of the method's pretraining phase, if it has one.
        lr: learning rate, constant.
    """
    values: dict[str, Any] = {"gamma": 1.0, "alpha": 0.0, "terms": (), "teacher": None}
    if method != ALONE:
        about = lookup.describe(method)
        path = str(about.path) if about.external else None
        values["terms"] = (Term(about.name, about.beta, about.hyper, path=path),)
        values["gamma"] = about.objective.get("gamma", 1.0)
        if about.needs_teacher:
            values["teacher"] = Teacher(pair[0], NO_RUN)
            values["alpha"] = about.objective.get("alpha", 1.0)
        if pretrain and about.has_pretrain:
            values["pretrain"] = (pretrain, lr)
    training = Training(
        epochs=epochs,
        batch_size=batch,
        lr=lr,
        precision=precision,  # type: ignore[arg-type]
        schedule=Schedule(kind="constant"),
    )
    return Run(
        student=pair[1],
        dataset=Dataset(name="cifar100"),
        training=training,
        temperature=4.0,
        seed=0,
        method=method,
        **values,
    )


def learner(
    run: Run, data: LoadedData, loaded: LoadedTeacher | None, device: torch.device
) -> Learner:
    """Return the learner of a run at its first step."""
    loaded = loaded if run.teacher else None
    return Learner(
        run,
        num_classes=data.num_classes,
        in_channels=data.channels,
        size=data.size,
        train_labels=data.train_labels,
        teacher=dry_run(loaded.network, data.channels, data.size) if loaded else None,
        teacher_head=loaded.head() if loaded else None,
        teacher_network=loaded.network if loaded else None,
        device=device,
    )


def needs_teacher(method: str) -> bool:
    """Return whether a method's run has a teacher."""
    return method != ALONE and lookup.describe(method).needs_teacher


def has_pretrain(method: str) -> bool:
    """Return whether a method has a pretraining phase."""
    return method != ALONE and lookup.describe(method).has_pretrain
