"""Settings of data and training."""

from typing import Any

import pytest
from pydantic import ValidationError

from kdbench.grid.settings import Dataset, Protocol, Schedule, Training


def test_folder_of_images_changes_no_id() -> None:
    a = Dataset(name="imagefolder", root="/data/a/birds", size=32)
    b = Dataset(name="imagefolder", root="elsewhere/birds", size=32)
    assert a.canonical == b.canonical == {"name": "imagefolder", "label": "birds", "size": 32}
    named = Dataset(name="imagefolder", root="x", label="Birds, small")
    assert named.canonical["label"] == "Birds, small"
    assert named.title == "Birds, small"


def test_values_without_effect_change_no_id() -> None:
    plain = Dataset(name="cifar100").canonical
    assert Dataset(name="cifar100", size=32, subset_seed=3).canonical == plain
    assert Dataset(name="cifar100", per_class=5, subset_seed=0).canonical == plain | {
        "per_class": 5
    }
    assert Dataset(name="cifar100", per_class=5, subset_seed=1).canonical["subset_seed"] == 1
    assert Dataset(name="digits", subset_seed=1).canonical["subset_seed"] == 1
    assert Dataset(name="cifar100", size=16).canonical["size"] == 16


def test_title_of_dataset_lists_its_settings() -> None:
    held = Dataset(name="cifar10", size=16, per_class=50, subset_seed=2, validation=0.1)
    assert held.title == "cifar10, 16x16, 50 per class, subset 2, 10% held out"


@pytest.mark.parametrize("values", [{"name": "imagefolder"}, {"name": "digits", "root": "x"}])
def test_root_is_for_imagefolder_only(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="root"):
        Dataset(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"epochs": 0}, {"epochs": True}, {"epochs": 1.5}, {"epochs": "many"}, {"lr": float("inf")},
        {"lr": float("nan")}, {"lr": 0}, {"lr": True}, {"momentum": 1}, {"weight_decay": -1},
        {"schedule": {"milestones": [3, 3]}}, {"schedule": {"kind": "stairs"}}, {"epoch": 3},
        {"precision": "fp16"}, {"crop_pad": -1}, {"flip": 3}, {"temperature": 0},
    ],
)  # fmt: skip
def test_wrong_values_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Protocol(**values)


def test_equal_numbers_in_other_forms_are_equal() -> None:
    given: dict[str, Any] = {"lr": 1, "weight_decay": -0.0, "epochs": 3.0}
    assert Training(**given).canonical == Training(lr=1.0, weight_decay=0.0, epochs=3).canonical


def test_values_of_other_schedules_have_no_effect() -> None:
    cosine = Schedule(kind="cosine", warmup=0.1)
    assert Schedule(kind="cosine", warmup=0.1, milestones=(5,), factor=0.5).canonical == (
        cosine.canonical
    )
    assert Schedule(milestones=(5,), warmup=0.2).canonical == Schedule(milestones=(5,)).canonical
    assert Schedule(milestones=(5,)).canonical != Schedule(milestones=(6,)).canonical


def test_student_can_have_its_own_learning_rate() -> None:
    protocol = Protocol(lr=0.05, lr_of={"vgg8": 0.01})
    assert protocol.training("vgg8").lr == 0.01
    assert protocol.training("vgg11").lr == 0.05
    assert protocol.training("vgg8", lr=0.3).lr == 0.3
    assert type(protocol.training("vgg8")) is Training
