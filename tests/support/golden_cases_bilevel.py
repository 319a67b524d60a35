"""Mapping of the golden cases of L2T-ww; ``golden_files.py`` explains the terms."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from golden_files import NO_FEATURES, Builder, Built, Case, same_names
from torch import Tensor, nn

from kdbench.grid.settings import Training
from kdbench.look_ahead import LookAhead, Whole
from kdbench.method import Features, MetaOptimizer, Method, Setup
from kdbench.registry import lookup
from kdbench.training import objective
from kdbench.training.epoch_sums import EpochSums
from kdbench.training.meta_training import MetaTraining
from kdbench.training.phases import Phases
from kdbench.training.ranks import ALONE


class Blocks(nn.Module):
    """The toy network that ``meta.network`` describes: blocks of convolution, batch norm, ReLU."""

    def __init__(self, channels: list[int], strides: list[int], num_classes: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b))
            for a, b, stride in zip([3, *channels], channels, strides, strict=False)
        )
        self.fc = nn.Linear(channels[-1], num_classes)

    def forward(self, images: Tensor) -> Features:
        stages, x = [], images
        for block in self.blocks:
            x = block(x).relu()
            stages.append(x)
        embedding = x.mean((2, 3))
        return Features(images, tuple(stages), tuple(stages), embedding, self.fc(embedding))


def l2tww(case: Case) -> Built:
    """Map ``branch.<i>``, ``wnet.<i>`` and ``lwnet.<i>`` (``lwnet.weights``: constants)."""
    return _step(case) if case.kind == "step" else _term(case)


def _hyper(case: Case) -> dict[str, Any]:
    assert case.hyper["beta"] == 0.5, "the weight within the method"
    return {
        "pairs": ",".join(f"{i}-{j}" for i, j in case.hyper["pairs"]),
        "where": case.hyper.get("loss_weight_type", "relu6"),
    }


def _names(case: Case) -> dict[str, str]:
    names = same_names(case, wnet="what_nets", lwnet="where_nets.nets", target="student")
    return {x: y.replace("where_nets.nets.weights", "where_nets.theta") for x, y in names.items()}


def _term(case: Case) -> Built:
    method: Any = _build(case.setup(), **_hyper(case))

    def output(name: str, number: int) -> Callable[[], Tensor]:
        return lambda: method.weights(case.teacher, number)[name == "where"]

    outputs = {
        f"{name}{i}": output(name, i)
        for name in ("what", "where")
        for i in range(len(case.hyper["pairs"]))
    }
    return Built(method, _names(case), outputs=outputs)


def _build(setup: Setup, **hyper: Any) -> Method:
    return lookup.load("l2tww")(setup, **hyper)


def _step(case: Case) -> Built:
    """Take whole iterations with the engine's phases, optimiser and look ahead."""
    network = case.meta["network"]
    student = Blocks(network["channels"], network["strides"], case.meta["num_classes"])
    with torch.no_grad():
        s = student(case.batches[0].images.float())
    setup = case.setup(student=s, teacher=_teacher(case, 0))
    method = _build(setup, looks=case.hyper["T"], **_hyper(case))
    kind, lr, decay = (case.hyper[f"meta_{key}"] for key in ("optimizer", "lr", "wd"))
    vars(method)["meta_optimizer"] = MetaOptimizer(kind, lr, decay)
    whole = Whole(student, nn.ModuleList([method]))
    names = {x: y if y.startswith("student") else f"methods.0.{y}" for x, y in _names(case).items()}

    def compare(case: Case) -> Iterator[tuple[str, Tensor]]:
        yield from _iterations(case, whole, method, names)

    return Built(method, names, module=whole, compare=compare)


def _iterations(
    case: Case, whole: Whole, method: Method, names: dict[str, str]
) -> Iterator[tuple[str, Tensor]]:
    """Take the file's iterations, and yield every value."""
    training = Training(
        lr=0.1, momentum=case.hyper["momentum"], weight_decay=case.hyper["wd"], nesterov=False
    )
    phases = Phases(whole.student, whole.methods)
    optimizer = phases.optimizer("train", training)
    phases.set_modes("train")
    engine = MetaTraining(whole.student, phases, training, ALONE)
    parameters = dict(whole.named_parameters())
    sums = EpochSums(case.batch.labels.device)
    look = LookAhead.loss
    losses: list[Tensor] = []

    def noted(self: LookAhead, *args: Any) -> Tensor:
        losses.append(look(self, *args))
        return losses[-1]

    gradients: dict[str, Tensor] = {}

    def before(*_: object) -> None:
        gradients.update({n: p.grad.clone() for n, p in parameters.items() if p.grad is not None})

    [meta_optimizer] = engine.optimizers
    assert meta_optimizer is not None
    meta_optimizer.register_step_pre_hook(before)
    meta = {x: y for x, y in names.items() if x.split(".")[0] in ("wnet", "lwnet")}
    inner = {x: y for x, y in names.items() if x not in meta and y in parameters}
    for i, batch in enumerate(case.batches):
        optimizer.param_groups[0]["lr"] = case.hyper["lr_used"][i]
        t = _teacher(case, i)
        s = whole.student(batch.images)
        term = method.loss(s, t, batch)
        task = F.cross_entropy(s.logits, batch.labels)
        losses[:] = [term, task]
        loss = objective.loss(s.logits, batch.labels, None, [(1.0, term)], 1.0, 0.0, 4.0)
        optimizer.update(loss, ALONE, phases.learnable)
        yield from ((f"plain{i}/{x}", parameters[y]) for x, y in inner.items())
        with mock.patch.object(LookAhead, "loss", noted):
            engine.adapt(optimizer, t, batch, sums)
        yield from ((f"meta_grad{i}/{x}", gradients[y]) for x, y in meta.items())
        yield f"out/losses{i}", torch.stack([x.detach() for x in losses])
        if i == 0:
            yield "loss", losses[-1]
        with torch.no_grad():
            whole.student(batch.images)  # rolling back, the reference sees the batch once more
        state = whole.state_dict()
        yield from ((f"after{i}/{x}", state[y]) for x, y in names.items())
        if case.hyper["momentum"]:
            for x, y in inner.items():
                momentum = optimizer.state[parameters[y]]["momentum_buffer"]
                yield f"after{i}/momentum.{x}", momentum


def _teacher(case: Case, number: int) -> Features:
    """Return the teacher's features of a step's batch: its maps."""
    arrays = case.arrays
    count = sum(key.startswith(f"t_x{number}_stage") for key in arrays)
    return replace(NO_FEATURES, stages=tuple(arrays[f"t_x{number}_stage{k}"] for k in range(count)))


BUILDERS: dict[str, Builder] = {"l2tww": l2tww}
