"""Result and cost of a learner that has ended."""

import math
import resource
from typing import Any

import torch

from kdbench.data.dataset import LoadedData
from kdbench.models import size
from kdbench.models.peers import networks
from kdbench.runs import history
from kdbench.runs.records import Cost, Result
from kdbench.training.learner import Learner
from kdbench.training.teacher import LoadedTeacher


def result(
    learner: Learner, weights: str, data: LoadedData, teacher: LoadedTeacher | None
) -> Result | None:
    """Return a learner's result; None if it finished no epoch."""
    if not learner.history:
        return None
    last = learner.history[-1]
    best = max(learner.history, key=lambda row: row["test_acc"])
    selected = None
    if "val_acc" in last:
        selected = max(learner.history, key=lambda row: row["val_acc"])["test_acc"]
    return Result(
        epoch=int(last["epoch"]),
        steps=learner.steps_done,
        train_loss=last["train_loss"],
        train_acc=last.get("train_acc", math.nan),
        test_loss=last["test_loss"],
        test_acc=last["test_acc"],
        test_top5=last["test_top5"],
        best_acc=best["test_acc"],
        best_epoch=int(best["epoch"]),
        weights=weights,
        data=data.digest,
        n_train=len(data.train_labels),
        n_test=len(data.test_labels),
        teacher_acc=teacher.acc if teacher else None,
        teacher_weights=teacher.weights if teacher else None,
        val_acc=last.get("val_acc"),
        selected_acc=selected,
        last_finite_loss=learner.last_finite_loss if learner.status == "diverged" else None,
        answers=history.answers(last) or None,
    )


def cost(learner: Learner, data: LoadedData) -> Cost:
    """Return a learner's cost in time, parameters, operations and memory."""
    network: Any = networks(learner.student)[0]
    student = size.params(network)
    modules = [module for method in learner.terms for module in method.deployed()]
    deployed = sum(size.params(module) for module in modules)
    # If a method replaces the prediction, the student's own classifier is not deployed.
    unused_head = size.params(network.head) if learner.predictions.predictor else 0
    extra = size.params(learner.student) - student + size.params(learner.methods) - deployed
    reserved = None
    if learner.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(learner.device) / 2**20
        reserved = round(torch.cuda.max_memory_reserved(learner.device) / 2**20, 1)
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Cost(
        seconds=round(learner.seconds_before + learner.clock.settle(), 3),
        teacher_seconds=round(learner.teacher_seconds, 3),
        step_ms=round(learner.clock.median_ms(), 3),
        params=student,
        params_deployed=student - unused_head + deployed,
        params_extra=max(0, extra),
        macs=size.macs(learner.run.student, data.channels, data.size, data.num_classes),
        peak_mb=round(peak, 1),
        peak_reserved_mb=reserved,
    )
