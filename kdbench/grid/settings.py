"""What a grid file may say about data and training: the pydantic models where YAML comes in.

They are frozen, compare by value, and ``canonical`` is the form a run's id is made of. A field that
is None stands in no id, so a later version can add one without changing every id.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from kdbench.grid.dataset_facts import DATASETS


def _no_flag(value: Any) -> Any:
    """Python counts True as 1; a grid does not."""
    if isinstance(value, bool):
        raise ValueError("expected a number")
    return value


Whole = Annotated[int, BeforeValidator(_no_flag)]
Real = Annotated[
    float,
    BeforeValidator(_no_flag),
    AfterValidator(lambda value: value + 0.0),  # -0.0 and 0.0 are one number
    Field(allow_inf_nan=False),
]
Positive = Annotated[Whole, Field(gt=0)]
Count = Annotated[Whole, Field(ge=0)]
Weight = Annotated[Real, Field(ge=0)]
Rate = Annotated[Real, Field(gt=0)]
Share = Annotated[Real, Field(gt=0, lt=1)]

if TYPE_CHECKING:
    DatasetName = str
else:
    DatasetName = Literal[tuple(DATASETS)]


class Strict(BaseModel):
    """Base of everything read from YAML: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Dataset(Strict):
    """Which images, which of them, how large.

    Attributes:
        name: one of ``DATASETS``.
        root: imagefolder only: the folder that holds ``train/CLASS/*`` and ``test/CLASS/*``. Where
            data lies decides no number and stands in no id; the record keeps the data's digest.
        label: imagefolder only: what to call the data in tables, e.g. "CIFAR-10 (JPEG)".
        size: resize to this many pixels; None: as it is.
        per_class: class-balanced subset of the training set, images per class.
        subset_seed: which subset, and which labels are noise.
        validation: share of the training set held out, class-balanced, to select on.
        label_noise: share of every class's training images whose label is drawn anew from all
            classes, the right one among them; held-out and test labels stay as they are.
        noise_by: "image", as said (the default); "class": as the SemCKD authors' code does it: the
            noise of image number c is looked up for class c, and so whole classes are relabelled.
    """

    name: DatasetName
    root: str | None = None
    label: str | None = None
    size: Positive | None = None
    per_class: Positive | None = None
    subset_seed: Count | None = None
    validation: Share | None = None
    label_noise: Share | None = None
    noise_by: Literal["image", "class"] | None = None

    @model_validator(mode="after")
    def _folder(self) -> "Dataset":
        if self.name == "imagefolder":
            if not self.root:
                raise ValueError("imagefolder needs a root: the folder with train/ and test/")
        elif self.root or self.label:
            raise ValueError(f"root and label belong to imagefolder, not to {self.name}")
        if self.noise_by and not self.label_noise:
            raise ValueError("noise_by needs label_noise: the share of labels drawn anew")
        return self

    @property
    def title(self) -> str:
        """What tables call it, e.g. ``digits, 30 per class``."""
        parts = [self._called]
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
        return ", ".join(parts)

    @property
    def _called(self) -> str:
        """The images' name, without what was made of them."""
        return self.label or (Path(self.root).resolve().name if self.root else self.name)

    @property
    def canonical(self) -> dict[str, Any]:
        """What decides a number: without ``root``, and without what changes nothing."""
        values = self.model_dump(exclude_none=True, exclude={"root"})
        if self.name == "imagefolder":
            values["label"] = self._called
        if self.noise_by == "image":
            values.pop("noise_by")
        drawn = self.per_class or self.validation or self.label_noise or self.name == "digits"
        if not (self.subset_seed and drawn):
            values.pop("subset_seed", None)
        shape = DATASETS[self.name].shape
        if shape and self.size == shape.size:
            values.pop("size")
        return values


class Schedule(Strict):
    """Learning rate over the epochs.

    ``step``: times ``factor`` after each of ``milestones`` (epochs counted from 1: with 150 the
    first reduced epoch is 151), constant within an epoch. ``cosine``: per step, from the full rate
    to 0, after a linear ``warmup`` (a share of all steps).
    """

    kind: Literal["step", "cosine", "constant"] = "step"
    milestones: tuple[Positive, ...] = ()
    factor: Annotated[Real, Field(gt=0, le=1)] = 0.1
    warmup: Annotated[Real, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _increasing(self) -> "Schedule":
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones {list(self.milestones)} do not increase")
        return self

    @property
    def canonical(self) -> dict[str, Any]:
        """What decides a number: what another kind of schedule would use is at its default."""
        used = {"step": {"milestones", "factor"}, "cosine": {"warmup"}, "constant": set[str]()}
        mine = {key: getattr(self, key) for key in ("kind", *used[self.kind])}
        return Schedule(**mine).model_dump(mode="json")


class Auxiliary(Strict):
    """A student that stands in as teacher, and the method by which the pair's teacher taught it."""

    student: str
    method: str


class MethodOptions(Strict):
    """What a grid or a protocol may say of a method beside its own hyper-parameters.

    Attributes:
        beta: weight of the method's term; None: the method's default.
        gamma: weight of cross-entropy. alpha: weight of T^2*KL. temperature: T.
        pretrain_epochs: length of the phase before training. pretrain_lr: its learning rate.
        auxiliary: distil from this run's student instead of the pair's teacher (HKD).
        label: what tables call this row.
    """

    beta: Weight | None = None
    gamma: Weight | None = None
    alpha: Weight | None = None
    temperature: Rate | None = None
    pretrain_epochs: Count | None = None
    pretrain_lr: Rate | None = None
    auxiliary: Auxiliary | None = None
    label: Annotated[str, Field(min_length=1)] | None = None


OPTIONS = tuple(MethodOptions.model_fields)


class Training(Strict):
    """How a network is trained; all of it is part of every result.

    Attributes:
        epochs: length of training. batch_size: constant; an epoch's last, smaller batch is dropped.
        lr: learning rate; ``lr_of`` replaces it for a student of that name.
        momentum, nesterov, weight_decay: of SGD, on everything that is trained.
        schedule: of the learning rate.
        crop_pad: zero-pad by this many pixels and crop at random; 0: do not.
        flip: mirror half of the images.
        precision: of both networks; losses of small tensors are fp32 always.
        compile: train students through ``torch.compile``, which rounds otherwise; None: do not.
        pretrain_epochs, pretrain_lr: the phase before training of the methods that have one, at a
            constant rate; None: the student's own.
    """

    epochs: Positive = 240
    batch_size: Positive = 64
    lr: Rate = 0.05
    momentum: Annotated[Real, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = False
    weight_decay: Weight = 5e-4
    schedule: Schedule = Schedule()
    crop_pad: Count = 4
    flip: bool = True
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: Annotated[bool | None, AfterValidator(lambda value: value or None)] = None
    pretrain_epochs: Count = 30
    pretrain_lr: Rate | None = None

    @property
    def canonical(self) -> dict[str, Any]:
        """What decides a number, without the first phase (a run that has one says so itself)."""
        apart = {"pretrain_epochs", "pretrain_lr", "schedule"}
        values = self.model_dump(mode="json", exclude_none=True, exclude=apart)
        return values | {"schedule": self.schedule.canonical}


class Protocol(Training):
    """``Training`` plus what differs between students and methods: a preset, or written out.

    Attributes:
        name: what tables call it.
        source: paper or code that this protocol follows.
        gamma, alpha, temperature: weights of ``gamma*CE + alpha*T^2*KL`` beside a method's term.
        lr_of: student name -> learning rate.
        methods: method name -> options and hyper-parameters, e.g. ``{at: {beta: 1000}}``.
    """

    name: str = "custom"
    source: str | None = None
    gamma: Weight = 1.0
    alpha: Weight = 1.0
    temperature: Rate = 4.0
    lr_of: dict[str, Rate] = {}
    methods: dict[str, dict[str, Any]] = {}

    def training(self, student: str, lr: float | None = None) -> Training:
        """The resolved settings for one student; ``lr`` replaces the protocol's."""
        values = {name: getattr(self, name) for name in Training.model_fields}
        values["lr"] = lr if lr is not None else self.lr_of.get(student, self.lr)
        return Training.model_construct(**values)
