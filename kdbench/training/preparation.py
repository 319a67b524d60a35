"""Calls of ``Method.prepare``: buffers computed from the training set before a run's first step."""

from collections.abc import Iterator

import torch
from torch import Tensor

from kdbench.data.batches import eval_batches
from kdbench.data.dataset import LoadedData
from kdbench.method import ContractBroken, Features, Method
from kdbench.registry import conduct
from kdbench.registry.process_state import kept
from kdbench.rng import key
from kdbench.training import evaluation
from kdbench.training.device import seed
from kdbench.training.learner import Learner
from kdbench.training.teacher import LoadedTeacher


def prepare_methods(learner: Learner, data: LoadedData, teacher: LoadedTeacher | None) -> None:
    """Let a new learner's methods prepare themselves; on several ranks each does the same.

    Raises:
        ContractBroken: a method asks for a teacher that the run does not have, uses a generator
            that the seed does not set, or keeps something that no checkpoint holds.
    """
    for method in learner.terms:
        if type(method).prepare is Method.prepare:
            continue
        who = type(method).__name__
        if teacher is None:
            raise ContractBroken(f"{who}.prepare needs a teacher: set needs_teacher = True")
        seed(learner.device, key(learner.run.seed, "prepare", who))
        before = conduct.contents(method)
        bf16 = learner.run.training.precision == "bf16"
        autocast = torch.autocast(learner.device.type, torch.bfloat16, enabled=bf16)
        own_generators = conduct.without_other_generators(f"{who}.prepare")
        with learner.clock, kept(who), own_generators, torch.no_grad(), autocast:
            method.prepare(_examples(data, teacher))
        names = conduct.differing(before, conduct.contents(method))
        if names:
            raise ContractBroken(conduct.unsaved(who, names, "prepare"))


def _examples(data: LoadedData, teacher: LoadedTeacher) -> Iterator[tuple[Features, Tensor]]:
    """Yield the teacher's features, and labels, of all training images in order."""
    batches = eval_batches(data.train_images, data.train_labels, data, evaluation.BATCH)
    for images, labels in batches:
        yield teacher(images), labels.clone()  # other methods read the labels, too
