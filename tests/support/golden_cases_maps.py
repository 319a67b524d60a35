"""Builders of golden cases: methods of the second series that match maps and regions."""

from dataclasses import replace

import torch
from golden_cases import Builder, Built, Case, same_names
from torch import Tensor, nn

from kdbench.method import Method, Setup
from kdbench.registry import lookup


def build(case: Case, setup: Setup, **hyper: object) -> Method:
    """Build the method that the case's folder names."""
    return lookup.load(case.folder)(setup, **hyper)


def catkd(case: Case) -> Built:
    """The file has the maps of classes; they become last maps of classifiers that do nothing.

    The classifiers have a bias, which must not matter.
    """
    hyper, classes = case.hyper, int(case.meta["num_classes"])
    s, t = (
        replace(f, last=maps)
        for f, maps in (
            (case.student, case.inputs["s_cam"]),
            (case.teacher, case.arrays["t_cam"]),
        )
    )
    bias = torch.arange(classes, dtype=torch.float64, device=s.logits.device)
    head = nn.Linear(classes, classes)
    nn.init.eye_(head.weight)
    method = build(
        case,
        case.setup(student=s, teacher=t, teacher_head=head, student_head=lambda x: x + bias),
        grid=hyper["resolution"],
        normalise=hyper["normalise"],
        binarise=hyper["binarise"],
    )

    def run(case: Case, method: Method) -> Tensor:
        return float(hyper["weight"]) * method.loss(s, t, case.batch)

    names = ("classifier.weight", "classifier.bias")
    return Built(method, run=run, ignore={f"ours:{name}": "the identity" for name in names})


def ofd(case: Case) -> Built:
    """The margins are not read from the file but computed, as the loss then shows."""
    norms = []
    for i in range(len(case.teacher.preacts)):
        weight, bias = (case.arrays[f"t_bn{i}_{kind}"] for kind in ("weight", "bias"))
        norm = nn.BatchNorm2d(len(weight)).double()
        norm.load_state_dict(norm.state_dict() | {"weight": weight, "bias": bias})
        norms.append(norm)
    setup = case.setup(teacher_norms=tuple(norms))
    method = build(case, setup, variant=case.variant, scale=case.hyper["scale"])
    computed = {name: "computed" for name in case.params if name.startswith("margin")}
    names = {
        name: "connectors." + name.lower().replace("connectors.", "")
        for name in case.params
        if name not in computed
    }
    return Built(method, names, ignore=computed)


def sdd(case: Case) -> Built:
    """Both classifiers are the file's; the student's is no part of the method."""
    hyper = case.hyper
    s, t = (replace(f, last=f.stages[-1]) for f in (case.student, case.teacher))
    heads = {}
    for name in ("s_fc", "t_fc"):
        classes, width = case.params[f"{name}.weight"].shape
        heads[name] = nn.Linear(width, classes)
    method = build(
        case,
        case.setup(
            student=s, teacher=t, teacher_head=heads["t_fc"], student_head=heads["s_fc"].forward
        ),
        base=case.variant,
        levels=len(hyper["M"].split(",")),
        tau=hyper["T"],
        target=hyper.get("alpha", 1.0),
        rest=hyper.get("beta", hyper.get("gamma", 1.0)),
        warmup=0.0,
    )
    names = {name: name.replace("t_fc.", "method.classifier.") for name in case.params}

    def run(case: Case, method: Method) -> Tensor:
        return method.loss(s, t, case.batch)

    def patches(which: int) -> Tensor:
        logits: tuple[Tensor, Tensor] = method.region_logits(s, t)  # type: ignore[operator]
        return logits[which].mT

    outputs = {"patch_s": lambda: patches(0), "patch_t": lambda: patches(1)}
    whole = nn.ModuleDict({"method": method, "s_fc": heads["s_fc"]})
    return Built(method, names, run, module=whole, outputs=outputs)


def wkd(case: Case) -> Built:
    hyper = case.hyper
    schedule = {"decay_from": float(hyper["decay_epoch"])}
    batch = replace(case.batch, epoch=hyper["epoch"], epochs=hyper["epochs"])

    def run(case: Case, method: Method) -> Tensor:
        return method.loss(case.student, case.teacher, batch)

    if case.variant == "feature":
        method = build(
            case,
            case.setup(),
            form="feature",
            feature_weight=hyper["weight"],
            ratio=hyper["ratio"],
            grid=hyper["grid"],
            **schedule,
        )
        return Built(method, same_names(case), run)
    weights = case.arrays["t_fc"]
    head = nn.Linear(weights.shape[1], len(weights)).double().to(weights.device)
    head.load_state_dict({"weight": weights, "bias": torch.zeros_like(weights[:, 0])})
    method = build(
        case,
        case.setup(teacher_head=head),
        weight=hyper["weight"],
        tau=hyper["T"],
        regularisation=hyper["reg"],
        iterations=hyper["iters"],
        sharpen=hyper["sharpen"],
        cost=hyper["cost"],
        **schedule,
    )
    # The reference adds 1e-8 later.
    return Built(method, run=run, outputs={"cost": lambda: method.get_buffer("cost") - 1e-8})


BUILDERS: dict[str, Builder] = {"catkd": catkd, "ofd": ofd, "sdd": sdd, "wkd": wkd}
