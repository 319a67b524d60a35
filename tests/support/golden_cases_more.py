"""Mapping of the golden cases of the other methods; ``golden_cases.py`` explains the terms."""

from dataclasses import replace
from typing import Any

import torch
from golden_files import Builder, Built, Case, same_names
from torch import Tensor, nn

from kdbench.method import Method, Setup
from kdbench.registry import lookup


def build(case: Case, setup: Setup | None = None, **hyper: Any) -> Method:
    """Build the method that the case's folder names."""
    return lookup.load(case.folder)(setup or case.setup(), **hyper)


def teacher_head(case: Case) -> nn.Linear:
    """Return the case's frozen classifier, ``cls_t``."""
    classes, width = case.params["cls_t.weight"].shape
    return nn.Linear(width, classes).requires_grad_(False)


def ab(case: Case) -> Built:
    names = same_names(case, connector="")
    names = {name: ours.removeprefix(".") for name, ours in names.items()}
    return Built(build(case, margin=case.hyper["margin"]), names)


def cc(case: Case) -> Built:
    hyper = case.hyper
    if case.variant == "paper":
        return Built(build(case, variant="paper", order=hyper["P_order"], rbf=hyper["gamma"]))
    names = {name: name.replace(".linear.", ".") for name in case.params}
    return Built(build(case, variant=case.variant, width=hyper["feat_dim"]), names)


def crd(case: Case) -> Built:
    """Use the file's indices instead of drawing; column 0 is the positive.

    A file with ``index2`` and ``contrast_idx2`` has a second step, on the same outputs unless it
    has ``s_embedding2``, ``t_embedding2``. Its loss is the second step's or the sum of both; the
    nearer one counts, and its gradients must then agree, too.
    """
    hyper, n = case.hyper, case.hyper["n_data"]
    method = build(
        case,
        case.setup(train_labels=torch.arange(n) % int(case.meta["num_classes"])),
        k=hyper["nce_k"],
        tau=hyper["nce_t"],
        momentum=hyper["nce_m"],
        width=hyper["feat_dim"],
        mode=hyper["mode"],
    ).double()

    def step(method: Method, number: str) -> Tensor:
        drawn = case.arrays[f"contrast_idx{number}"]
        negatives = torch.zeros(len(drawn), n, dtype=torch.int64, device=drawn.device)
        negatives.scatter_add_(1, drawn[:, 1:], torch.ones_like(drawn[:, 1:]))
        vars(method)["draw"] = lambda batch: (drawn[:, 0], negatives)
        s, t = case.student, case.teacher
        batch = replace(case.batch, index=case.arrays[f"index{number}"])
        s = replace(s, embedding=case.inputs.get(f"s_embedding{number}", s.embedding))
        t = replace(t, embedding=case.arrays.get(f"t_embedding{number}", t.embedding))
        return method.loss(s, t, batch)

    def run(case: Case, method: Method) -> Tensor:
        first = step(method, "")
        if "contrast_idx2" not in case.arrays:
            return first
        second, reference = step(method, "2"), case.arrays["loss"]
        return min(second, first + second, key=lambda loss: abs(loss.item() - reference.item()))

    def params(method: Method) -> Tensor:
        z = method.get_buffer("z")
        return torch.cat([start[:2], z, start[4:]])

    start = case.params["contrast.params"]  # K, tau, Z of v1, Z of v2, momentum
    method.get_buffer("z").copy_(start[2:4])
    names = {
        name: name.replace(".linear.", ".").removeprefix("contrast.")
        for name in case.params
        if name != "contrast.params"
    }
    return Built(method, names, run=run, read={"contrast.params": params})


def dkd(case: Case) -> Built:
    hyper = case.hyper
    weights = {"target": hyper["alpha"], "rest": hyper["beta"], "tau": hyper["T"]}
    return Built(build(case, warmup=0, **weights))


def fsp(case: Case) -> Built:
    return Built(build(case))


def ft(case: Case) -> Built:
    """Map names to consecutive indices; the reference numbers the layers in steps of three."""
    hyper = dict(case.hyper)
    method = build(case, variant=case.variant, **hyper)
    names = {}
    for name in case.params:
        net, part, index, rest = name.split(".")
        if net == "translator":
            names[name] = f"translator.{index}.{rest}"
        else:
            names[name] = f"{part}.{int(index) * 2 // 3}.{rest}"
    unused = {}
    if case.phase == "pretrain":
        reason = "the translator takes no part in the pretraining phase"
        translator = method.get_submodule("translator")
        unused = {f"ours:translator.{name}": reason for name, _ in translator.named_parameters()}
    return Built(method, names, ignore=unused)


def hkd(case: Case) -> Built:
    hyper = case.hyper
    method = build(
        case,
        variant=case.variant,
        stage_weight=hyper["init_weight"],
        decay=hyper["decay"],
        eps=hyper["eps"],
    )

    def run(case: Case, method: Method) -> Tensor:
        batch = replace(case.batch, epoch=hyper.get("epoch", 0) + 1)
        return method.loss(case.student, case.teacher, batch)

    return Built(method, run=run)


def irg(case: Case) -> Built:
    hyper = case.hyper
    if case.variant == "zoo":
        weights = {"vertex": hyper["w_vert"], "edge": hyper["w_edge"], "change": hyper["w_tran"]}
        return Built(build(case, variant="zoo", stages=tuple(hyper["stages"]), **weights))
    return Built(
        build(
            case,
            variant=case.variant,
            graph=hyper["w_graph"],
            transform=hyper["w_transform"],
            layers_s=tuple(hyper["transform_layer_s"]),
            layers_t=tuple(hyper["transform_layer_t"]),
            edge_transform=not hyper["no_edge_transform"],
        )
    )


def nst(case: Case) -> Built:
    return Built(build(case))


def pkt(case: Case) -> Built:
    return Built(build(case, eps=case.hyper["eps"]))


def reviewkd(case: Case) -> Built:
    return Built(build(case, warmup=0), same_names(case))


def rkd(case: Case) -> Built:
    hyper = case.hyper
    return Built(build(case, distance=hyper["w_d"], angle=hyper["w_a"], eps=hyper["eps"]))


def simkd(case: Case) -> Built:
    method = build(case, case.setup(teacher_head=teacher_head(case)), **case.hyper)
    names = {name: ours.removeprefix(".") for name, ours in same_names(case, simkd="").items()}
    return Built(method, names | {"cls_t.weight": "head.weight", "cls_t.bias": "head.bias"})


def srrl(case: Case) -> Built:
    method = build(case, case.setup(teacher_head=teacher_head(case)))
    names = {name: ours.removeprefix(".") for name, ours in same_names(case, srrl="").items()}
    return Built(method, names | {"cls_t.weight": "head.weight", "cls_t.bias": "head.bias"})


BUILDERS: dict[str, Builder] = {
    "ab": ab,
    "cc": cc,
    "crd": crd,
    "dkd": dkd,
    "fsp": fsp,
    "ft": ft,
    "hkd": hkd,
    "irg": irg,
    "nst": nst,
    "pkt": pkt,
    "reviewkd": reviewkd,
    "rkd": rkd,
    "simkd": simkd,
    "srrl": srrl,
}
