"""Mapping of the golden cases of kind ``network``; ``golden_files.py`` explains the terms."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from golden_files import Builder, Built, Case
from torch import Tensor, nn

from kdbench.method import Batch, Features
from kdbench.models import upper_part
from kdbench.models.network import Lower, Network
from kdbench.registry import lookup
from kdbench.tensors import kl


class Toy(Network):
    """A network of the files: each stage, the stem included, is a convolution with batch norm."""

    head_name = "fc"

    def __init__(
        self, *, channels: Sequence[int], strides: Sequence[int], num_classes: int
    ) -> None:
        super().__init__(3)
        before = [3, *channels[:-1]]
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b))
            for a, b, stride in zip(before, channels, strides, strict=True)
        )
        self.parts = tuple((f"stages.{k}",) for k in range(len(channels)))
        self.fc = nn.Linear(channels[-1], num_classes)

    def begin(self, images: Tensor) -> Lower:
        return Lower(self.stages[0](images).relu())

    def stage(self, lower: Lower) -> Lower:
        before = self.stages[len(lower.stages) + 1](lower.last)
        return lower.then(before.relu(), before)

    def norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        return ()


def fcfd(case: Case) -> Built:
    """Take the file's paths; the teacher is in train mode, as in the authors' code."""
    hyper = case.hyper
    teacher, student = (
        Toy(**case.meta["network"][name], num_classes=case.meta["num_classes"])
        for name in ("teacher", "student")
    )
    teacher.requires_grad_(False)
    with torch.no_grad():
        shapes = [network(torch.zeros(2, 3, 8, 8)) for network in (student, teacher)]
    setup = case.setup(
        student=shapes[0],
        teacher=shapes[1],
        teacher_from=upper_part.of_frozen(teacher),
        student_from=upper_part.of_live(student),
    )
    cls: Any = lookup.load("fcfd")
    method = cls(
        setup, weight=hyper["weight_l2"], temperature=hyper["T"], paths=len(hyper["paths"])
    )
    # A path of the file has a network for every stage: 0 is the teacher, 1 the student.
    paths = [p for p in method.choices if _in_file(p, len(teacher.parts)) in hyper["paths"]]
    paths.sort(key=lambda p: hyper["paths"].index(_in_file(p, len(teacher.parts))))
    method.draw = lambda batch: paths
    whole = nn.ModuleDict({"teacher": teacher, "student": student, "method": method})

    def compare(case: Case) -> Iterator[tuple[str, Tensor]]:
        epoch = hyper["epoch_from_0"] + 1
        batch = Batch(case.arrays["x0"], case.batch.labels, case.batch.index, epoch, epochs=240)
        with torch.no_grad():
            t: Features = teacher.train()(batch.images)
        s: Features = student.train()(batch.images)
        assert hyper["kl_mixture"] == 1
        loss = hyper["label"] * F.cross_entropy(s.logits, batch.labels)
        loss = loss + hyper["kl_teacher"] * kl(s.logits, t.logits, hyper["T"])
        loss = loss + method.loss(s, t, batch)
        loss.backward()
        yield "loss", loss.detach()
        parameters, state = dict(whole.named_parameters()), whole.state_dict()
        for name, own in names.items():
            gradient = parameters[own].grad if own in parameters else None
            if f"grad_param/{name}" in case.expected:
                assert gradient is not None, f"grad_param/{name}: no gradient"
                yield f"grad_param/{name}", gradient
            else:
                assert gradient is None, f"{name}: a gradient that the reference does not have"
            if f"buffer_after/{name}" in case.expected:
                yield f"buffer_after/{name}", state[own]

    last = len(teacher.parts) - 1
    unused = re.compile(rf"bridges\.{last}\.1\.0\.")
    names = {name: _ours(name) for name in case.params if not unused.match(name)}
    ignore = dict.fromkeys(
        (name for name in case.params if unused.match(name)),
        "a bridge out of the teacher's last stage is never used",
    )
    return Built(method, names, module=whole, ignore=ignore, compare=compare)


def _in_file(path: Any, stages: int) -> list[int]:
    """Return a path as the files write it."""
    first = int(path.student_first)
    return [first if i <= path.k else 1 - first for i in range(stages)]


def _ours(name: str) -> str:
    """Return our name of a parameter or buffer."""
    network = re.match(r"models\.(\d)\.", name)
    if network:
        return name.replace(network[0], ("teacher.", "student.")[int(network[1])], 1)
    bridge = re.match(r"bridges\.(\d+)\.(\d)\.\d\.", name)
    assert bridge, name
    group = ("to_teacher", "to_student")[int(bridge[2])]
    return name.replace(bridge[0], f"method.{group}.{int(bridge[1]) - 1}.", 1)


BUILDERS: dict[str, Builder] = {"fcfd": fcfd}
