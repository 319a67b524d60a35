"""Builders of golden cases: logit methods of the second series."""

from dataclasses import replace

import torch.nn.functional as F
from golden_cases import Builder, Built, Case, build, same_names
from torch import Tensor

from kdbench.method import Method


def ctkd(case: Case) -> Built:
    """The file's loss is the whole objective; its gradient of g is already reversed."""
    hyper = case.hyper
    lowest, span = hyper["t_start"], hyper["t_end"]
    method = build(case, lowest=lowest, span=span, loops=float(hyper["decay_loops"]))

    def run(case: Case, method: Method) -> Tensor:
        batch = replace(case.batch, epoch=hyper["epoch"], epochs=240)
        ce = F.cross_entropy(case.student.logits, batch.labels)
        term = method.loss(case.student, case.teacher, batch)
        return hyper["gamma"] * ce + hyper["alpha"] * term

    return Built(method, {"mlp.global_T": "free"}, run)


def nkd(case: Case) -> Built:
    hyper = case.hyper
    return Built(build(case, rest=hyper["gamma"], tau=hyper["T"], variant=case.variant))


def ofa(case: Case) -> Built:
    """Map ``projector.<stage>.<block>.op.<layer>``; the reference counts stages from 1."""
    hyper = case.hyper
    weights = {"own": hyper["kd_weight"], "exits": hyper["ofa_weight"], "tau": hyper["T"]}
    names = {}
    for name in case.params:
        _, stage, rest = name.split(".", 2)
        names[name] = f"projectors.{int(stage) - 1}.{rest.replace('.op.', '.')}"
    return Built(build(case, eps=tuple(hyper["eps"]), **weights), names)


def uskd(case: Case) -> Built:
    """The file has the pooled stage, ``s_mid``, a leaf that no stage agrees with."""
    hyper, pooled = case.hyper, case.inputs["s_mid"]
    weights = {"target": hyper["alpha"], "rest": hyper["beta"], "weak": hyper["mu"]}
    *first, _, last = case.student.stages
    # As a map of one pixel, whose mean is the pooled stage.
    student = replace(case.student, stages=(*first, pooled[:, :, None, None], last))
    method = build(replace(case, student=student), variant=case.variant, **weights)

    def run(case: Case, method: Method) -> Tensor:
        return method.loss(student, case.teacher, case.batch)

    return Built(method, same_names(case), run)


BUILDERS: dict[str, Builder] = {"ctkd": ctkd, "nkd": nkd, "ofa": ofa, "uskd": uskd}
