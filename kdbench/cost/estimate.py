"""What a run will cost before anything is trained: operations and memory, and so hours."""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from kdbench.cost.counting import (
    NetworkCost,
    Shape,
    TermsCost,
    adapter_cost,
    convolutions,
    network_cost,
    term_cost,
)
from kdbench.data.readers.by_name import available
from kdbench.grid.dataset_facts import DATASETS
from kdbench.grid.run import Run, Term
from kdbench.grid.settings import Dataset
from kdbench.training.evaluation import BATCH


@dataclass(frozen=True)
class Operations:
    """Floating-point operations of a training.

    Attributes:
        student: forwards and backwards. teacher: forwards. methods: what they add to both.
        evaluation: the student's forwards of the test images.
    """

    student: float = 0.0
    teacher: float = 0.0
    methods: float = 0.0
    evaluation: float = 0.0


@dataclass(frozen=True)
class RunCost:
    """Cost of one run trained alone; memory in bytes.

    Attributes:
        operations: of the whole training.
        held: what stays between steps: weights, momentum and buffers of student and methods.
        working: what one step, evaluation or checkpoint needs beside that, at most.
        teacher: weights of the teacher. asked: what its forward of a batch holds at most.
        shown: what of that stays while the students learn from it: its features.
        data: images and labels.
        problem: how it will end without a number ("skipped: why", "fails: why"), why nobody can
            say what it costs, or "".
        rough: the method was counted on another pair.
    """

    operations: Operations = Operations()
    held: float = 0.0
    working: float = 0.0
    teacher: float = 0.0
    teacher_forward: float = 0.0
    teacher_features: float = 0.0
    data: float = 0.0
    problem: str = ""
    rough: bool = False

    @property
    def flops(self) -> float:
        """All operations."""
        parts = self.operations
        return parts.student + parts.teacher + parts.methods + parts.evaluation

    @property
    def memory(self) -> float:
        """Bytes of the networks in training, data and torch itself apart."""
        step = max(self.teacher_features + self.working, self.teacher_forward)
        return self.held + self.teacher + step


@cache
def shape(dataset: Dataset) -> Shape:
    """The size of a data set; of a folder of images it counts the files."""
    facts = DATASETS[dataset.name]
    train, test = facts.train_images, facts.test_images
    if facts.shape is None:
        root = Path(dataset.root or "")
        classes = sorted(p for p in root.glob("train/*") if p.is_dir())
        train = sum(sum(1 for _ in p.iterdir()) for p in classes)
        test = sum(sum(1 for _ in p.iterdir()) for p in root.glob("test/*") if p.is_dir())
        channels, size, k = 3, 32, max(1, len(classes))
    else:
        channels, size, k = facts.shape
    if dataset.per_class:
        rest = train + test
        train = min(train, dataset.per_class * k)
        test = rest - train if dataset.name == "digits" else test
    if dataset.validation:
        train = round(train * (1 - dataset.validation))
    return Shape(channels, dataset.size or size, k, train, test)


def data_bytes(of: Shape, crop_pad: int) -> int:
    """Bytes of a data set in training: images, the training images in their frame, labels."""
    images = (of.train + of.test) * of.channels * of.size**2
    framed = of.train * of.channels * (of.size + 2 * crop_pad) ** 2 if crop_pad else 0
    return images + framed + 8 * (of.train + of.test)


def _memory(run: Run, of: Shape, extra: TermsCost) -> RunCost:
    """The bytes of a run whose methods add ``extra``."""
    half, b = run.training.precision == "bf16", run.training.batch_size
    student = network_cost(run.student, of).in_precision(half)
    guide = network_cost(run.teacher.arch, of) if run.teacher else NetworkCost()
    guide = guide.in_precision(half)
    # Weights and momentum; gradients live for a step.
    held = 2 * 4 * (student.parameters + extra.parameters) + extra.remembered
    step = student.step(b) + max(extra.kept, extra.phase_kept)
    step += 2 * student.parameters if half else 0  # autocast's copies of the weights
    evaluated = min(BATCH, of.test) * student.looked
    saved = 2 * held  # a checkpoint, and the bytes of its file
    return RunCost(
        held=float(held),
        # What steps free stays with the process, in pieces too small for an evaluation.
        working=float(max(step + evaluated, saved)),
        teacher=4.0 * guide.parameters,
        # The features of the batch before are still there.
        teacher_forward=b * (guide.looked + guide.features),
        teacher_features=b * guide.features,
        data=float(data_bytes(of, run.training.crop_pad)),
    )


def generous(run: Run) -> RunCost:
    """Memory that a run will not exceed with methods of kdbench's own, which are not counted.

    They grow with adapters from every stage to every stage; the factors are twice what the dearest
    methods need (tests/cost/test_estimate.py).
    """
    of, b, n = shape(run.dataset), run.training.batch_size, len(run.terms)
    arch = run.teacher.arch if run.teacher else None
    kept = adapter_cost(run.student, arch, of)[2]
    extra = TermsCost(
        parameters=n * 6 * convolutions(run.student, arch, of),
        kept=n * (64 * b**3 + 100 * b * kept),
        remembered=n * (2**21 + 2048 * of.train),
    )
    return _memory(run, of, extra)


class Estimator:
    """Estimates runs, counting each method on each pair once.

    Attributes:
        seconds: left to spend on counting. After that a method that was counted on another pair is
            not counted again: its cost is taken to grow as adapters would.
    """

    def __init__(self, seconds: float = math.inf) -> None:
        self.seconds = seconds
        self._counted: dict[tuple[object, ...], TermsCost] = {}
        self._known: dict[str, tuple[TermsCost, tuple[float, ...]]] = {}

    def __call__(self, run: Run) -> RunCost:
        """What training this run alone costs, whatever its seed."""
        root = run.dataset.root
        if root and not available("imagefolder", Path(root))[0]:  # of what is done it may be gone
            return RunCost(problem=f"cost unknown: no image folder {root}")
        of, training = shape(run.dataset), run.training
        teacher = run.teacher.arch if run.teacher else None
        steps = of.train // training.batch_size * training.epochs
        if not steps:
            told = f"{of.train} training images do not fill a batch of {training.batch_size}"
            return RunCost(problem=f"fails: {told}")
        half = training.precision == "bf16"
        extra, rough = self.terms(run.student, teacher, of, training.batch_size, run.terms, half)
        if extra.incompatible:
            return RunCost(problem=f"skipped: {extra.incompatible}", rough=rough)
        student = network_cost(run.student, of)
        guide = network_cost(teacher, of) if teacher else NetworkCost()
        images = steps * training.batch_size
        phase = run.pretrain[0] / training.epochs if run.pretrain and extra.pretrains else 0.0
        seen = 2 * images * (1 + phase)
        operations = Operations(  # a backward pass costs two forwards
            student=seen * 3 * student.macs,
            teacher=seen * guide.macs,
            methods=seen * 3 * extra.macs,
            evaluation=2.0 * training.epochs * of.test * student.macs,
        )
        return replace(_memory(run, of, extra), operations=operations, rough=rough)

    def terms(
        self,
        student: str,
        teacher: str | None,
        of: Shape,
        batch_size: int,
        terms: Sequence[Term],
        half: bool = False,
    ) -> tuple[TermsCost, bool]:
        """What a run's methods add, whatever their weights; and whether that is a rough guess."""
        total, rough = TermsCost(), False
        for term in terms:
            part, guessed = self._term(student, teacher, of, batch_size, term, half)
            total, rough = total + part, rough or guessed
        return total, rough

    def _term(
        self, student: str, teacher: str | None, of: Shape, batch_size: int, term: Term, half: bool
    ) -> tuple[TermsCost, bool]:
        name = f"{term.where} {bool(term.beta)} {half}"
        described = f"{name} {json.dumps(term.hyper, sort_keys=True)}"
        key = (student, teacher, of.channels, of.size, of.classes, of.train, batch_size, described)
        if key in self._counted:
            return self._counted[key], False
        size = adapter_cost(student, teacher, of)
        near = self._known.get(described) or self._known.get(name)
        if near and self.seconds <= 0:
            counted, there = near
            return counted.scaled(*(a / b for a, b in zip(size, there, strict=True))), True
        began = time.process_time()
        counted = term_cost(student, teacher, of, batch_size, term, half)
        self.seconds -= time.process_time() - began
        self._counted[key] = counted
        if not counted.incompatible:
            self._known[described] = self._known[name] = (counted, size)
        return counted, False
