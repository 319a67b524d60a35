"""The golden files as cases, of all kinds; see tests/golden/README.md."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdbench.method import Batch, Features, Method, Setup

KINDS = ("term", "peers", "step", "network", "optimizer")
LEAVES = re.compile(r"(s|s2|p\d+)_.+|shared_map")
"""Names of the inputs whose gradients a file may have."""
GIVEN = re.compile(r"(param|kd\d+|task\d+)/")
"""Names with a slash that are inputs; all others are expected values."""
NOTHING = torch.zeros(0, dtype=torch.float64)
NO_FEATURES = Features(NOTHING, (), (), NOTHING, NOTHING)
"""Features of a file without outputs of networks: the builder's toy networks make them."""


@dataclass(frozen=True)
class Case:
    """One golden file, float64.

    Attributes:
        folder: the method's folder, such as ``at``.
        name: the case, such as ``match_b4``.
        meta: metadata of the file.
        arrays: all other arrays of the file, by key.
        inputs: the student's tensors (``s_stage0``, ``p0_logits`` ...), leaves that require
            gradients.
        student: the same as ``Features``; ``preacts`` are the stages if the file has none. In kind
            ``peers`` the leader's, with all peers, the leader first.
        teacher: constants; a file without a teacher has the student's, detached.
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
    def kind(self) -> str:
        """Return what the file holds: one of ``KINDS``."""
        return str(self.meta.get("kind", "term"))

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

    @property
    def batches(self) -> tuple[Batch, ...]:
        """Return the batch of each step, ``x<i>`` with ``labels<i>`` (or ``labels``)."""
        count = sum(re.fullmatch(r"x\d+", key) is not None for key in self.arrays)
        labels = [self.arrays.get(f"labels{i}", self.arrays["labels"]) for i in range(count)]
        return tuple(
            Batch(self.arrays[f"x{i}"], y, torch.arange(len(y), device=y.device), step=i)
            for i, y in enumerate(labels)
        )

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

    @property
    def expected(self) -> set[str]:
        """Return the names of the values that the reference computed."""
        return {"loss"} | {key for key in self.arrays if "/" in key and not GIVEN.match(key)}

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
        method: the method in the mode for the run (frozen parts in eval mode); None for an
            optimiser, which is not a method.
        param_names: reference name -> our name in ``state_dict``, parameters and buffers.
        run: case, method -> loss; None: ``loss``, or ``pretrain_loss`` in phase ``pretrain``; in
            kind ``peers`` the leader's cross-entropy and ``loss``.
        read: reference name -> our value after the run, if no entry of ``state_dict`` has the
            reference's form; the builder loads such tensors.
        ignore: reference name (or ``ours:<name>``, or a name with its group, ``out/loss0``) ->
            reason for not comparing.
        module: module that holds the method and toy networks, in whose ``state_dict`` the names of
            ours are; None: the method.
        outputs: name -> our value of ``out/<name>`` after the run. In kinds ``term`` and ``peers``
            the other intermediate results are not compared: loss and gradients follow from them.
        compare: runs everything and yields (key in the file, our value) when it is known, instead
            of ``run``; required in the other kinds. It must yield every expected value that
            ``ignore`` does not name.
    """

    method: Method | None
    param_names: dict[str, str] = field(default_factory=dict)
    run: Callable[[Case, Method], Tensor] | None = None
    read: dict[str, Callable[[Method], Tensor]] = field(default_factory=dict)
    ignore: dict[str, str] = field(default_factory=dict)
    module: nn.Module | None = None
    outputs: dict[str, Callable[[], Tensor]] = field(default_factory=dict)
    compare: Callable[[Case], Iterator[tuple[str, Tensor]]] | None = None

    @property
    def whole(self) -> nn.Module:
        """Return the module to which ``param_names`` maps."""
        module = self.module if self.module is not None else self.method
        assert module is not None, "the builder gives neither a method nor a module"
        return module


Builder = Callable[[Case], Built]


def read_case(path: Path, device: torch.device | str = "cpu") -> Case:
    """Read a golden file as a case on a device, with new leaf tensors on every call."""
    with np.load(path) as file:
        meta = json.loads(str(file["meta"]))
        names = [key for key in file.files if key != "meta"]
        arrays = {key: torch.from_numpy(file[key]).to(device) for key in names}
    kind = meta.get("kind", "term")
    assert kind in KINDS, f"{path}: the kind is {kind}, expected one of {', '.join(KINDS)}"
    inputs = {
        key: value.clone().requires_grad_()
        for key, value in arrays.items()
        if LEAVES.fullmatch(key)
    }
    student, teacher = NO_FEATURES, NO_FEATURES
    if kind == "term":
        student, teacher = _with_views(inputs, "s"), _with_views(arrays, "t")
    elif kind == "peers":
        student = _peers(inputs, meta["leader"], meta["n_peers"])
        teacher = student.detached()
    batch_size = len(arrays["labels"])
    images = torch.zeros(batch_size, 3, 8, 8, dtype=torch.float64, device=device)
    return Case(
        folder=path.parent.name,
        name=path.stem,
        meta=meta,
        arrays=arrays,
        inputs=inputs,
        student=student,
        teacher=teacher,
        batch=Batch(
            images=images,
            labels=arrays["labels"],
            index=arrays.get("index", torch.arange(batch_size, device=device)),
            views=(images,) * len(student.views),
        ),
    )


def _with_views(arrays: dict[str, Tensor], prefix: str) -> Features:
    """Return a network's features, with the second view if the file has its logits."""
    features = _features(arrays, prefix)
    second = arrays.get(f"{prefix}2_logits")
    if second is None:
        return features
    return replace(features, views=(replace(NO_FEATURES, logits=second),))


def _features(arrays: dict[str, Tensor], prefix: str) -> Features:
    def numbered(kind: str) -> tuple[Tensor, ...]:
        count = sum(re.fullmatch(rf"{prefix}_{kind}\d+", key) is not None for key in arrays)
        return tuple(arrays[f"{prefix}_{kind}{i}"] for i in range(count))

    stages = numbered("stage")
    return Features(
        stem=arrays[f"{prefix}_stem"],
        stages=stages,
        preacts=numbered("preact") or stages,
        embedding=arrays[f"{prefix}_embedding"],
        logits=arrays[f"{prefix}_logits"],
    )


def _peers(inputs: dict[str, Tensor], leader: int, count: int) -> Features:
    """Return the leader's features with those of all peers, the leader first.

    Stem and first stage of each are ``shared_map`` (zeros if there is none), its last stage is the
    embedding as a map of one position. Without outputs of peers, the builder makes them.
    """
    if "p0_logits" not in inputs:
        return NO_FEATURES
    peers = []
    for i in (leader, *(i for i in range(count) if i != leader)):
        embedding, logits = inputs[f"p{i}_embedding"], inputs[f"p{i}_logits"]
        nothing = embedding.new_zeros(len(embedding), 1, 1, 1)
        shared = inputs.get("shared_map", nothing)
        stages = (shared, embedding[:, :, None, None])
        peers.append(Features(shared, stages, stages, embedding, logits))
    return replace(peers[0], peers=tuple(peers))


def same_names(case: Case, **prefixes: str) -> dict[str, str]:
    """Replace the first part of every reference name: ``same_names(case, vid="parts")``."""
    names = {}
    for name in case.params:
        head, dot, tail = name.partition(".")
        names[name] = prefixes.get(head, head) + dot + tail
    return names
