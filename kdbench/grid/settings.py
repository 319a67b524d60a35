"""Settings of data and training in a grid file: pydantic models that validate YAML.

They are frozen and compare by value. A run's id is computed from their ``canonical`` form, which
leaves out fields that are None: a later version can add fields without changing existing ids.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from kdbench.grid.dataset_facts import DATASETS
from kdbench.grid.optimizers import Optimizer
from kdbench.grid.transfer_set import NOISE, TransferSet
from kdbench.grid.value_types import Count, Line, Positive, Rate, Real, Share, Strict, Weight

if TYPE_CHECKING:
    DatasetName = str
else:
    DatasetName = Literal[tuple(DATASETS)]


class Dataset(Strict):
    """A data set, a subset of it, and the size of its images.

    Attributes:
        name: one of ``DATASETS``.
        root: imagefolder only: the folder of ``train/CLASS/*`` and ``test/CLASS/*``. It is not part
            of a run's id; records store the digest of the data.
        label: imagefolder only: name of the data in tables, e.g. "CIFAR-10 (JPEG)".
        size: resize to this many pixels; None: do not resize.
        per_class: images per class of a class-balanced subset of the training set.
        subset_seed: seed of the subset and of the label noise.
        validation: share of the training set that is held out, class-balanced, for selection.
        label_noise: share of each class's training images whose label is drawn from all classes,
            the correct one included; held-out and test labels do not change.
        noise_by: "image": as described (the default); "class": as in the SemCKD authors' code,
            which applies the noise of image number c to class c and so relabels whole classes.
        transfer: images without labels that students train on; teachers and students alone do not.
    """

    name: DatasetName
    root: str | None = None
    label: Line | None = None
    size: Annotated[Positive, Field(le=4096)] | None = None
    per_class: Positive | None = None
    subset_seed: Count | None = None
    validation: Share | None = None
    label_noise: Share | None = None
    noise_by: Literal["image", "class"] | None = None
    transfer: TransferSet | None = None

    @model_validator(mode="after")
    def _folder(self) -> "Dataset":
        if self.name == "imagefolder":
            if not self.root:
                raise ValueError("imagefolder needs a root: the folder of train/ and test/")
        elif self.root or self.label:
            raise ValueError(f"root and label are for imagefolder only, not for {self.name}")
        if self.noise_by and not self.label_noise:
            raise ValueError("noise_by needs label_noise: the share of labels to replace")
        return self

    @model_validator(mode="after")
    def _enough_images(self) -> "Dataset":
        facts = DATASETS[self.name]
        # Classes differ in size in some data sets; the smallest has at most the mean.
        most = facts.train_images // facts.shape.classes if facts.shape else 0
        if most and self.per_class and self.per_class > most:
            raise ValueError(
                f"per_class: expected at most {most:,}, the images per class of {self.name}, "
                f"not {self.per_class}"
            )
        return self

    @property
    def title(self) -> str:
        """Name in tables, e.g. ``digits, 30 per class``."""
        parts = [self._source]
        if self.size:
            parts.append(f"{self.size}x{self.size}")
        if self.per_class:
            parts.append(f"{self.per_class} per class")
        if self.subset_seed:
            parts.append(f"subset {self.subset_seed}")
        if self.validation:
            parts.append(f"{self.validation:.0%} held out")
        if self.label_noise:
            by = " by class" if self.noise_by == "class" else ""
            parts.append(f"{100 * self.label_noise:g}% label noise{by}")
        if self.transfer:
            parts.append(f"trained on {self.transfer.title}")
        return ", ".join(parts)

    @property
    def _source(self) -> str:
        """Name of the images, without subset, size and noise."""
        return self.label or (Path(self.root).resolve().name if self.root else self.name)

    @property
    def labelled(self) -> "Dataset":
        """The data set without its transfer set."""
        return self.model_copy(update={"transfer": None}) if self.transfer else self

    @property
    def roots(self) -> tuple[str, ...]:
        """The folders of images, of the data set and of its transfer set."""
        return tuple(part.root for part in (self, self.transfer) if part and part.root)

    @property
    def canonical(self) -> dict[str, Any]:
        """The values that determine a result: without ``root`` and values that have no effect.

        ``version`` is that of the facts, if it is above 1.
        """
        values = self.model_dump(exclude_none=True, exclude={"root", "transfer"})
        if self.name == "imagefolder":
            values["label"] = self._source
        if self.noise_by == "image":
            values.pop("noise_by")
        random = self.per_class or self.validation or self.label_noise or self.name == "digits"
        if self.transfer:
            values["transfer"] = self.transfer.canonical
            random = random or self.transfer.name == NOISE
        if not (self.subset_seed and random):
            values.pop("subset_seed", None)
        facts = DATASETS[self.name]
        if facts.shape and self.size == facts.shape.size:
            values.pop("size")
        if facts.version > 1:
            values["version"] = facts.version
        return values


class Schedule(Strict):
    """Schedule of the learning rate.

    ``step``: multiplied by ``factor`` after each of ``milestones`` (epochs counted from 1: with 150
    the first reduced epoch is 151), constant within an epoch. ``cosine``: changed at each step,
    from the full rate to 0, after a linear ``warmup`` (a share of all steps).
    """

    kind: Literal["step", "cosine", "constant"] = "step"
    milestones: tuple[Positive, ...] = ()
    factor: Annotated[Real, Field(gt=0, le=1)] = 0.1
    warmup: Annotated[Real, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _increasing(self) -> "Schedule":
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones {list(self.milestones)} must increase")
        return self

    @property
    def canonical(self) -> dict[str, Any]:
        """The values that determine a result; those of other kinds of schedule are at defaults."""
        used = {"step": {"milestones", "factor"}, "cosine": {"warmup"}, "constant": set[str]()}
        values = {key: getattr(self, key) for key in ("kind", *used[self.kind])}
        return Schedule(**values).model_dump(mode="json")


class Auxiliary(Strict):
    """A network that the pair's teacher teaches, and that then teaches the student.

    Attributes:
        student: its architecture.
        method: the method by which the pair's teacher teaches it.
    """

    student: str
    method: str


class MethodOptions(Strict):
    """Options that every method has in a grid or a protocol, in addition to hyper-parameters.

    Attributes:
        beta: weight of the method's term; None: the method's default.
        gamma: weight of cross-entropy.
        alpha: weight of T^2*KL.
        temperature: T.
        pretrain_epochs: length of the pretraining phase.
        pretrain_lr: learning rate of the pretraining phase.
        pretrain_lr_of: student name -> learning rate of that phase; ``pretrain_lr`` replaces it.
        auxiliary: auxiliary teacher, which replaces the pair's teacher (HKD).
        label: name of the row in tables.
    """

    beta: Weight | None = None
    gamma: Weight | None = None
    alpha: Weight | None = None
    temperature: Rate | None = None
    pretrain_epochs: Count | None = None
    pretrain_lr: Rate | None = None
    pretrain_lr_of: dict[str, Rate] | None = None
    auxiliary: Auxiliary | None = None
    label: Annotated[Line, Field(min_length=1, max_length=200)] | None = None


OPTIONS = tuple(MethodOptions.model_fields)
PHASE = ("pretrain_epochs", "pretrain_lr", "pretrain_lr_of")
"""Options of a pretraining phase."""


class Training(Strict):
    """The recipe of a training; each value is part of the result.

    Attributes:
        epochs: length of training.
        batch_size: constant; a smaller last batch of an epoch is dropped.
        lr: learning rate; ``lr_of`` replaces it for a student of that name.
        momentum: of SGD, for all trained parameters.
        nesterov: of SGD, likewise.
        weight_decay: of SGD, likewise.
        optimizer: of the main phase; None: SGD.
        schedule: of the learning rate.
        crop_pad: zero-pad by this many pixels and crop at random; 0: do not.
        flip: mirror half of the images.
        precision: of both networks. fp32: IEEE single precision; tf32: convolutions, on a GPU only,
            round their inputs to 10 bits; bf16: mixed precision with bfloat16. Losses of small
            tensors are always fp32.
        compile: train students through ``torch.compile``, which rounds differently; None: do not.
        pretrain_epochs: length of the pretraining phase of methods that have one.
        pretrain_lr: constant learning rate of that phase; None: the student's.
    """

    epochs: Positive = 240
    batch_size: Annotated[Positive, Field(le=2**20)] = 64
    lr: Rate = 0.05
    momentum: Annotated[Real, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = False
    weight_decay: Weight = 5e-4
    optimizer: Optimizer | None = None
    schedule: Schedule = Schedule()
    crop_pad: Annotated[Count, Field(le=4096)] = 4
    flip: bool = True
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    compile: Annotated[bool | None, AfterValidator(lambda value: value or None)] = None
    pretrain_epochs: Count = 30
    pretrain_lr: Rate | None = None

    @model_validator(mode="after")
    def _optimizer_fits(self) -> "Training":
        misfit = self.optimizer.misfit(self.momentum, self.nesterov) if self.optimizer else ""
        if misfit:
            raise ValueError(f"optimizer: {misfit}")
        return self

    @property
    def canonical(self) -> dict[str, Any]:
        """The values that determine a result; ``Run.pretrain`` holds the pretraining phase."""
        separate = {"pretrain_epochs", "pretrain_lr", "schedule"}
        values = self.model_dump(mode="json", exclude_none=True, exclude=separate)
        return values | {"schedule": self.schedule.canonical}


class Protocol(Training):
    """``Training`` and the settings that differ between students and methods.

    Attributes:
        name: in tables.
        source: paper or code that this protocol follows.
        gamma: weight of cross-entropy.
        alpha: weight of T^2*KL.
        temperature: T.
        lr_of: student name -> learning rate.
        methods: method name -> options and hyper-parameters, e.g. ``{at: {beta: 1000}}``.
    """

    name: Line = "custom"
    source: Line | None = None
    gamma: Weight = 1.0
    alpha: Weight = 1.0
    temperature: Rate = 4.0
    lr_of: dict[str, Rate] = Field(default_factory=dict)
    methods: dict[str, dict[str, Any]] = Field(default_factory=dict)

    def training(self, student: str, lr: float | None = None) -> Training:
        """Return the recipe for one student; ``lr`` replaces the protocol's learning rate."""
        values = {name: getattr(self, name) for name in Training.model_fields}
        values["lr"] = lr if lr is not None else self.lr_of.get(student, self.lr)
        return Training.model_construct(**values)
