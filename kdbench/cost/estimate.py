"""Operations and memory of a run, estimated before it trains.

``precision: tf32`` counts like fp32: tensors have four bytes a value, and the operations are the
same; only their speed differs.
"""

import json
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from kdbench.cost.counting import TermsCost, adapter_cost, convolution_parameters, term_cost
from kdbench.cost.network_cost import DataShape, NetworkCost, network_cost
from kdbench.data.readers.by_name import absent_folders, available
from kdbench.grid.dataset_facts import DATASETS
from kdbench.grid.run import Run, Term
from kdbench.grid.settings import Dataset
from kdbench.grid.transfer_set import NOISE, TransferSet
from kdbench.method import Group, Method
from kdbench.registry import lookup
from kdbench.registry.lookup import built_in_path
from kdbench.training.evaluation import BATCH


@dataclass(frozen=True)
class Operations:
    """Floating-point operations of a training.

    Attributes:
        student: forward and backward passes.
        teacher: forward passes.
        methods: forward and backward passes.
        evaluation: the student's forward passes of the test images.
    """

    student: float = 0.0
    teacher: float = 0.0
    methods: float = 0.0
    evaluation: float = 0.0


@dataclass(frozen=True)
class RunCost:
    """Cost of one run trained alone; memory in bytes.

    Attributes:
        operations: operations of the whole training.
        held: weights, momentum and buffers of student and methods, kept between steps.
        working: peak of a step, evaluation or checkpoint in addition to ``held``.
        teacher: weights of the teacher.
        teacher_forward: peak of the teacher's forward pass of a batch.
        teacher_features: the teacher's features of a batch, kept while the students train.
        data: images and labels.
        batch: images of a batch.
        problem: why the run will end without a result ("skipped: why", "fails: why"), why its cost
            is unknown, or "".
        rough: whether a method's cost was scaled from another pair.
    """

    operations: Operations = Operations()
    held: float = 0.0
    working: float = 0.0
    teacher: float = 0.0
    teacher_forward: float = 0.0
    teacher_features: float = 0.0
    data: float = 0.0
    batch: float = 0.0
    problem: str = ""
    rough: bool = False

    @property
    def flops(self) -> float:
        """Operations of all parts."""
        parts = self.operations
        return parts.student + parts.teacher + parts.methods + parts.evaluation

    @property
    def memory(self) -> float:
        """Bytes of the networks in training, without data and torch itself."""
        step = max(self.teacher_features + self.working, self.teacher_forward)
        return self.held + self.teacher + step


@cache
def data_shape(dataset: Dataset) -> DataShape:
    """Return the size of a data set; counts the files if it is a folder of images."""
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
    if dataset.transfer:
        train = _transfer_images(dataset.transfer, train)
    return DataShape(channels, dataset.size or size, k, train, test)


def _transfer_images(transfer: TransferSet, train: int) -> int:
    """Return the number of images of a transfer set for ``train`` images of the data set."""
    if transfer.name == NOISE:
        return transfer.images or train
    if transfer.root:
        root = Path(transfer.root)
        part = root / "train" if available("imagefolder", root)[0] else root
        return sum(path.is_file() for path in part.rglob("*"))
    return DATASETS[transfer.name].train_images


def data_bytes(shape: DataShape, crop_pad: int) -> int:
    """Return the bytes of a data set in training: images, padded training images, labels."""
    images = (shape.train + shape.test) * shape.channels * shape.size**2
    framed = shape.train * shape.channels * (shape.size + 2 * crop_pad) ** 2 if crop_pad else 0
    return images + framed + 8 * (shape.train + shape.test)


def group_of(run: Run) -> Group | None:
    """Return the networks that learn together in a run; None: one, or the group is impossible."""
    for term, cls in _loaded(run):
        with suppress(Exception):  # such a run fails alone
            group = cls.group(**term.hyper)
            if group and group.size > 1:
                return group
    return None


def looks_ahead(run: Run) -> bool:
    """Check whether a method of the run looks ahead, so that no bound of its memory is known."""
    return any(cls.adapt is not Method.adapt for _, cls in _loaded(run))


def _loaded(run: Run) -> list[tuple[Term, type[Method]]]:
    """Return the methods of a run that can be loaded; a run of another one fails alone."""
    found = []
    for term in run.terms:
        with suppress(Exception, SystemExit):
            found.append((term, lookup.load(built_in_path(term.where))))
    return found


def _memory(run: Run, shape: DataShape, methods: TermsCost) -> RunCost:
    """Return the memory of a run with methods of this cost."""
    bf16, b = run.training.precision == "bf16", run.training.batch_size
    student = network_cost(run.student, shape, group_of(run)).in_precision(bf16)
    teacher = network_cost(run.teacher.arch, shape) if run.teacher else NetworkCost()
    teacher = teacher.in_precision(bf16)
    trained = student.parameters + methods.parameters
    two = bool(run.training.optimizer)  # DOT has two momenta, and two sets of gradients
    # Weights and momenta; gradients are only needed within a step.
    held = (2 + two) * 4 * trained + methods.remembered
    step = (
        student.step(b * methods.views)
        + max(methods.kept, methods.phase_kept)
        + two * 2 * 4 * trained
    )
    step += 2 * student.parameters if bf16 else 0  # autocast's copies of the weights
    evaluated = min(BATCH, shape.test) * student.inference
    saved = 2 * held  # a checkpoint, and the bytes of its file
    return RunCost(
        held=float(held),
        # Memory freed by steps stays with the process, in pieces too small for an evaluation.
        working=float(max(step + evaluated, saved)),
        teacher=4.0 * teacher.parameters,
        # The features of the previous batch are still in memory.
        teacher_forward=b * (teacher.inference + methods.views * teacher.features),
        teacher_features=b * methods.views * teacher.features,
        data=float(data_bytes(shape, run.training.crop_pad)),
        batch=4.0 * methods.views * b * shape.channels * shape.size**2,
    )


def upper_bound(run: Run) -> RunCost:
    """Return a memory cost that a run with kdbench's own methods does not exceed.

    The methods are not counted. Their memory grows with adapters from every stage to every stage;
    the factors are twice those of the most expensive methods (tests/cost/test_estimate.py). For
    methods that look ahead there is no bound (``looks_ahead``).
    """
    shape, b, n = data_shape(run.dataset), run.training.batch_size, len(run.terms)
    arch = run.teacher.arch if run.teacher else None
    kept = adapter_cost(run.student, arch, shape)[2]
    methods = TermsCost(
        parameters=n * 6 * convolution_parameters(run.student, arch, shape),
        kept=n * (64 * b**3 + 100 * b * kept),
        remembered=n * (2**21 + 2048 * shape.train),
        views=2,
    )
    return _memory(run, shape, methods)


class Estimator:
    """Estimator of runs' costs that counts each method on each pair once.

    Attributes:
        seconds: time left for counting. After that, the cost of a method already counted on
            another pair is scaled from there, as the cost of adapters would grow.
    """

    def __init__(self, seconds: float = math.inf) -> None:
        self.seconds = seconds
        self._by_pair: dict[tuple[object, ...], TermsCost] = {}
        self._by_method: dict[str, tuple[TermsCost, tuple[float, ...]]] = {}

    def __call__(self, run: Run) -> RunCost:
        """Return the cost of training this run alone; it does not depend on the seed."""
        absent = absent_folders(run.dataset)
        if absent:  # a finished run's may be deleted
            return RunCost(problem=f"cost unknown: no image folder {next(iter(absent))}")
        shape, training = data_shape(run.dataset), run.training
        teacher = run.teacher.arch if run.teacher else None
        steps = shape.train // training.batch_size * training.epochs
        if not steps:
            reason = f"{shape.train} training images do not fill a batch of {training.batch_size}"
            return RunCost(problem=f"fails: {reason}")
        bf16 = training.precision == "bf16"
        methods, rough = self.terms(
            run.student, teacher, shape, training.batch_size, run.terms, bf16
        )
        if methods.incompatible:
            return RunCost(problem=methods.problem, rough=rough)
        student_cost = network_cost(run.student, shape, group_of(run))
        teacher_cost = network_cost(teacher, shape) if teacher else NetworkCost()
        images = steps * training.batch_size
        phase = run.pretrain[0] / training.epochs if run.pretrain and methods.pretrains else 0.0
        per_mac = 2 * images * (1 + phase)  # a MAC is two operations
        both = run.gamma and (run.alpha or any(term.beta for term in run.terms))
        passes = 2 if training.optimizer and both else 1  # DOT has one for each part of the loss
        operations = Operations(  # a backward pass costs as much as two forward passes
            student=per_mac * methods.views * (1 + 2 * passes) * student_cost.macs,
            teacher=per_mac * methods.views * teacher_cost.macs,
            methods=per_mac * 3 * methods.macs,
            evaluation=2.0 * training.epochs * shape.test * student_cost.macs,
        )
        return replace(_memory(run, shape, methods), operations=operations, rough=rough)

    def terms(
        self,
        student: str,
        teacher: str | None,
        shape: DataShape,
        batch_size: int,
        terms: Sequence[Term],
        bf16: bool = False,
    ) -> tuple[TermsCost, bool]:
        """Return the cost of a run's methods for any weights, and whether it is a rough guess."""
        total, rough = TermsCost(), False
        for term in terms:
            part, part_is_rough = self._term(student, teacher, shape, batch_size, term, bf16)
            total, rough = total + part, rough or part_is_rough
        return total, rough

    def _term(
        self,
        student: str,
        teacher: str | None,
        shape: DataShape,
        batch_size: int,
        term: Term,
        bf16: bool,
    ) -> tuple[TermsCost, bool]:
        name = f"{term.where} {bool(term.beta)} {bf16}"
        name_and_hyper = f"{name} {json.dumps(term.hyper, sort_keys=True)}"
        key = (
            student,
            teacher,
            shape.channels,
            shape.size,
            shape.classes,
            shape.train,
            batch_size,
            name_and_hyper,
        )
        if key in self._by_pair:
            return self._by_pair[key], False
        size = adapter_cost(student, teacher, shape)
        similar = self._by_method.get(name_and_hyper) or self._by_method.get(name)
        if similar and self.seconds <= 0:
            counted, similar_size = similar
            return counted.scaled(*(a / b for a, b in zip(size, similar_size, strict=True))), True
        began = time.process_time()
        counted = term_cost(student, teacher, shape, batch_size, term, bf16)
        self.seconds -= time.process_time() - began
        self._by_pair[key] = counted
        if not counted.incompatible:
            self._by_method[name_and_hyper] = self._by_method[name] = (counted, size)
        return counted, False
