"""Golden cases of networks that learn together."""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from golden_files import Builder, Built, Case
from torch import Tensor, nn
from torch.nn import functional as F

from kdbench.method import Batch, Features, Group, Method
from kdbench.models.network import Lower, Network
from kdbench.models.peers import Peers
from kdbench.registry import lookup

EPOCH = 11
"""Epoch of cases that give the weight of the divergences, not the epoch."""


def build(case: Case, **hyper: Any) -> Method:
    """Build the case's method for the case's number of networks."""
    hyper = {"peers": case.hyper["n_peers"], **hyper}
    return lookup.load(case.folder)(case.setup(), **hyper)


def ramp(weight: float) -> float:
    """Return the length of a ramp-up whose weight in ``EPOCH`` is ``weight``."""
    return (EPOCH - 1) / (1 - math.sqrt(-math.log(weight) / 5))


def labelled(case: Case, method: Method, s: Features, batch: Batch) -> Tensor:
    """Return the whole training loss: the deployed network's cross-entropy, and the term."""
    return F.cross_entropy(s.logits, batch.labels) + method.loss(s, s.detached(), batch)


def run(case: Case, method: Method) -> Tensor:
    """Return the loss in the case's epoch."""
    epoch = case.hyper.get("epoch_from_0", EPOCH - 1) + 1
    return labelled(case, method, case.student, replace(case.batch, epoch=epoch, epochs=300))


def named(case: Case, **names: str) -> dict[str, str]:
    """Replace the first part of every reference name by ours."""
    return {name: names[name.split(".")[0]] + name[name.index(".") :] for name in case.params}


def dml(case: Case) -> Built:
    return Built(build(case, variant=case.variant))


def one(case: Case) -> Built:
    hyper = case.hyper
    length = hyper["rampup"] if "rampup" in hyper else ramp(hyper["consistency_weight"])
    method = build(case, variant=case.variant, rampup=length)
    names = named(case, control_v1="gate", bn_v1="norm")
    if case.variant != "authors":
        return Built(method, names, run)
    s = case.student

    def ensemble() -> Tensor:
        method.train()
        with torch.no_grad():
            return method.answers(s)["ensemble"]

    return Built(method, names, run, outputs={"ensemble_logits": ensemble})


class Branch(Network):
    """CL-ILR's head: it takes the shared stages' output as its images."""

    head_name = "classifier"
    parts: tuple[tuple[str, ...], ...] = ((), ("layer3",))

    def __init__(self, shared: int, width: int, num_classes: int) -> None:
        super().__init__(shared)
        self.layer3 = block(shared, width, stride=2)
        self.classifier = nn.Linear(width, num_classes)

    def begin(self, images: Tensor) -> Lower:
        return Lower(images)

    def stage(self, lower: Lower) -> Lower:
        before = self.next_module(lower)(lower.last)
        return lower.then(before.relu(), before)


class Toy(Branch):
    """OKDDip's network of the golden file with whole steps."""

    parts = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",))

    def __init__(self, widths: tuple[int, int, int], num_classes: int) -> None:
        first, second, third = widths
        super().__init__(second, third, num_classes)
        self.in_channels = 3
        self.conv1 = nn.Conv2d(3, first, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.layer1 = block(first, first)
        self.layer2 = block(first, second, stride=2)

    def begin(self, images: Tensor) -> Lower:
        return Lower(F.relu(self.bn1(self.conv1(images))))


def block(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    """Build a 3x3 convolution with batch norm."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs)
    )


def whole(case: Case, student: Peers, images: Tensor, **hyper: Any) -> nn.ModuleDict:
    """Return the networks and the method that is built for them."""
    s = student(images.float()).detached()
    for module in student.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    hyper = {"peers": len(student.networks), **hyper}
    method = lookup.load(case.folder)(case.setup(student=s, teacher=s), **hyper)
    return nn.ModuleDict({"student": student, "method": method})


def of_peers(case: Case, order: list[int], **names: str) -> dict[str, str]:
    """Map the reference's names to ours in ``whole``.

    Args:
        order: the position of each reference's peer among ours.
        names: the first part of names of the method's tensors -> ours.
    """
    found = {}
    for name in case.params:
        first, _, rest = name.partition(".")
        part, _, peer = first.rpartition("_")
        if first in names:
            found[name] = f"method.{names[first]}.{rest}"
        elif peer.isdigit():
            part = {"layer3": "layer3", "classifier3": "classifier"}[part]
            found[name] = f"student.networks.{order[int(peer)]}.{part}.{rest}"
        else:
            found[name] = f"student.networks.0.{name}"
    return found


def cl_ilr(case: Case) -> Built:
    n, shared = case.hyper["n_peers"], case.inputs["shared_map"]
    assert case.hyper["bpscale"] and case.variant == "okddip_repo"
    width = len(case.params["layer3_0.1.weight"])
    branches = [Branch(shared.shape[1], width, case.meta["num_classes"]) for _ in range(n)]
    group = lookup.load("cl_ilr").group(peers=n)
    assert group is not None
    student = Peers(branches, group)
    module = whole(
        case, student, shared.detach().cpu(), rampup=ramp(case.hyper["consistency_weight"])
    )
    method = module["method"]
    assert isinstance(method, Method)

    def run(case: Case, method: Method) -> Tensor:
        batch = replace(case.batch, epoch=EPOCH, epochs=300)
        return labelled(case, method, student(shared), batch)

    return Built(method, of_peers(case, [*range(n)]), run, module=module)


def okddip(case: Case) -> Built:
    hyper = case.hyper
    options = {"factor": hyper["factor"], "rampup": ramp(hyper["consistency_weight"])}
    if case.kind == "step":
        return okddip_steps(case, **options)
    form, _, group_loss = case.variant.partition("_")
    options |= {"form": form, "group_loss": group_loss.upper() or "KL"}
    return Built(build(case, **options), named(case, query_weight="query", key_weight="key"), run)


def okddip_steps(case: Case, **options: Any) -> Built:
    """Train the toy networks with torch's SGD."""
    n = case.hyper["n_peers"]
    toys = [Toy(case.meta["network"]["widths"], case.meta["num_classes"]) for _ in range(n)]
    module = whole(case, Peers(toys, Group(n, shared=-1)), case.batches[0].images.cpu(), **options)
    order = [*range(1, n), 0]  # the reference has the leader last
    names = of_peers(case, order, query_weight="query", key_weight="key")
    return Built(None, names, module=module, compare=partial(steps, module=module, names=names))


def steps(case: Case, module: nn.ModuleDict, names: dict[str, str]) -> Iterator[tuple[str, Tensor]]:
    """Take the file's steps, and yield losses, gradients of the first, and every state."""
    hyper, (student, method) = case.hyper, module.values()
    assert isinstance(method, Method)
    parameters = dict(module.named_parameters())
    optimizer = torch.optim.SGD(
        parameters.values(),
        lr=hyper["lr"],
        momentum=hyper["momentum"],
        weight_decay=hyper["wd"],
        nesterov=hyper["nesterov"],
    )
    for i, batch in enumerate(case.batches):
        batch = replace(batch, epoch=EPOCH, epochs=300)
        loss = labelled(case, method, student(batch.images), batch)
        optimizer.zero_grad()
        loss.backward()
        yield f"out/loss{i}", loss.detach()
        if i == 0:
            yield "loss", loss.detach()
            for name, ours in names.items():
                if ours in parameters:
                    gradient = parameters[ours].grad
                    assert gradient is not None
                    yield f"grad_param/{name}", gradient
        optimizer.step()
        state = module.state_dict()
        for name, ours in names.items():
            yield f"after{i}/{name}", state[ours]


BUILDERS: dict[str, Builder] = {"cl_ilr": cl_ilr, "dml": dml, "okddip": okddip, "one": one}
