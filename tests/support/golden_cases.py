"""Mapping of golden cases to our methods: reference names -> ours.

The builders of other methods are in ``golden_cases_*.py``; ``golden_builders.py`` merges them.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdbench.method import Batch, Features, Method, Setup
from kdbench.registry import lookup
from kdbench.training.objective import total


@dataclass(frozen=True)
class Case:
    """One golden file, float64.

    Attributes:
        folder: the method's folder, such as ``at``.
        name: the case, such as ``match_b4``.
        meta: metadata of the file.
        arrays: all other arrays of the file, by key.
        inputs: the student's tensors (``s_stage0`` ...), leaves that require gradients.
        student: the same as ``Features``; ``preacts`` are the stages if the file has none.
        teacher: constants.
        batch: labels, and the file's ``index`` (by default 0..B-1); images are zeros.
    """

    folder: str
    name: str
    meta: dict[str, Any]
    arrays: dict[str, Tensor]
    inputs: dict[str, Tensor]
    student: Features
    teacher: Features
    batch: Batch

    @property
    def hyper(self) -> dict[str, Any]:
        """Return the reference's hyper-parameters."""
        hyper: dict[str, Any] = self.meta["hyper"]
        return hyper

    @property
    def variant(self) -> str:
        """Return the variant of the reference."""
        return str(self.meta["variant"])

    @property
    def phase(self) -> str:
        """Return the phase: ``distill`` or ``pretrain``."""
        return str(self.meta["phase"])

    def starting(self, prefix: str) -> dict[str, Tensor]:
        """Return arrays under ``prefix/``, without the prefix: ``starting("grad_param")``."""
        return {
            key.removeprefix(f"{prefix}/"): value
            for key, value in self.arrays.items()
            if key.startswith(f"{prefix}/")
        }

    @property
    def params(self) -> dict[str, Tensor]:
        """Return the reference's parameters and buffers before the forward pass."""
        return self.starting("param")

    def setup(self, **changes: Any) -> Setup:
        """Return a ``Setup`` with the case's shapes; 32 training samples unless changed."""
        setup = Setup(
            student=self.student,
            teacher=self.teacher,
            train_labels=torch.arange(32) % int(self.meta["num_classes"]),
            batch_size=int(self.meta["batch_size"]),
            num_classes=int(self.meta["num_classes"]),
        )
        return replace(setup, **changes)


@dataclass(frozen=True)
class Built:
    """A case's method, and the mapping of the reference's names to ours.

    ``golden_check.py`` makes the method float64, copies ``param/<reference>`` into
    ``state_dict()[ours]`` for every pair of ``param_names``, runs it, and compares. Nothing is
    skipped: a reference tensor in none of ``param_names``, ``read`` and ``ignore`` is a failure,
    and so is a parameter of ours to which nothing maps.

    Attributes:
        method: the method in the mode for the run (frozen parts in eval mode).
        param_names: reference name -> our name in ``state_dict``, parameters and buffers.
        run: case, method -> loss; None: ``loss``, or ``pretrain_loss`` in phase ``pretrain``.
        read: reference name -> our value after the run, if no entry of ``state_dict`` has the
            reference's form; the builder loads such tensors.
        ignore: reference name (or ``ours:<name>``) -> reason for not comparing.
    """

    method: Method
    param_names: dict[str, str] = field(default_factory=dict)
    run: Callable[[Case, Method], Tensor] | None = None
    read: dict[str, Callable[[Method], Tensor]] = field(default_factory=dict)
    ignore: dict[str, str] = field(default_factory=dict)


Builder = Callable[[Case], Built]


def read_case(path: Path, device: torch.device | str = "cpu") -> Case:
    """Read a golden file as a case on a device, with new leaf tensors on every call."""
    with np.load(path) as file:
        meta = json.loads(str(file["meta"]))
        names = [key for key in file.files if key != "meta"]
        arrays = {key: torch.from_numpy(file[key]).to(device) for key in names}
    inputs = {
        key: value.clone().requires_grad_() for key, value in arrays.items() if key[:2] == "s_"
    }
    batch_size = len(arrays["labels"])
    return Case(
        folder=path.parent.name,
        name=path.stem,
        meta=meta,
        arrays=arrays,
        inputs=inputs,
        student=_features(inputs, "s"),
        teacher=_features(arrays, "t"),
        batch=Batch(
            images=torch.zeros(batch_size, 3, 8, 8, dtype=torch.float64, device=device),
            labels=arrays["labels"],
            index=arrays.get("index", torch.arange(batch_size, device=device)),
        ),
    )


def _features(arrays: dict[str, Tensor], prefix: str) -> Features:
    def numbered(kind: str) -> tuple[Tensor, ...]:
        count = sum(key.startswith(f"{prefix}_{kind}") for key in arrays)
        return tuple(arrays[f"{prefix}_{kind}{i}"] for i in range(count))

    stages = numbered("stage")
    return Features(
        stem=arrays[f"{prefix}_stem"],
        stages=stages,
        preacts=numbered("preact") or stages,
        embedding=arrays[f"{prefix}_embedding"],
        logits=arrays[f"{prefix}_logits"],
    )


def same_names(case: Case, **prefixes: str) -> dict[str, str]:
    """Replace the first part of every reference name: ``same_names(case, vid="parts")``."""
    names = {}
    for name in case.params:
        head, dot, tail = name.partition(".")
        names[name] = prefixes.get(head, head) + dot + tail
    return names


def build(case: Case, **hyper: Any) -> Method:
    """Build the method that the case's folder names."""
    return lookup.load(case.folder)(case.setup(), **hyper)


def at(case: Case) -> Built:
    return Built(build(case, p=case.hyper["p"]))


def fitnets(case: Case) -> Built:
    hyper = case.hyper
    method = build(case, hint_layer=hyper["hint_layer"], relu=hyper["use_relu"])
    return Built(method, same_names(case))


def kd(case: Case) -> Built:
    return Built(build(case, temperature=case.hyper["T"]))


def objective(case: Case) -> Built:
    """Build the whole objective around the case's term."""
    hyper = case.hyper

    def run(case: Case, method: Method) -> Tensor:
        s, t = case.student, case.teacher
        terms = [(hyper["beta"], method.loss(s, t, case.batch))]
        weights = (hyper["gamma"], hyper["alpha"], hyper["T"])
        return total(s.logits, case.batch.labels, t.logits, terms, *weights)

    return Built(lookup.load(hyper["term"])(case.setup()), run=run)


def semckd(case: Case) -> Built:
    """Map ``query_weight<i>``, ``key_weight<j>`` (or ``query_<i>``) and ``regressor<i><j>``."""
    hyper = case.hyper
    soft = hyper.get("soft", 1.0)
    method = build(case, soft=soft, factor=hyper["factor"])
    names, teacher_stages = {}, len(case.teacher.stages)
    for name in case.params:
        match = re.fullmatch(r"([a-z]+)(?:_weight|_|)(\d)(\d?)\.(.+)", name)
        assert match, f"semckd: no such reference name: {name}"
        kind, i, j, rest = match.groups()
        if kind == "regressor":
            rest = rest.removeprefix("regressor.")
            names[name] = f"regressors.{int(i) * teacher_stages + int(j)}.{rest}"
        else:
            names[name] = f"{ {'query': 'queries', 'key': 'keys'}[kind] }.{i}.{rest}"
    return Built(method, names)


def sp(case: Case) -> Built:
    return Built(build(case))


def vid(case: Case) -> Built:
    hyper = case.hyper
    method = build(case, variance=hyper["init_pred_var"], eps=hyper["eps"])
    return Built(method, same_names(case, vid="parts"))


BUILDERS: dict[str, Builder] = {
    "at": at,
    "fitnets": fitnets,
    "kd": kd,
    "objective": objective,
    "semckd": semckd,
    "sp": sp,
    "vid": vid,
}
