"""Grids whose students train on images without labels."""

from pathlib import Path
from typing import Any

import pytest
from small_grids import expanded, first, tree

from kdbench.grid.expand import Expansion
from kdbench.grid.grid import GridError
from kdbench.grid.parsing import parse
from kdbench.grid.run import Run
from kdbench.grid.settings import Dataset
from kdbench.grid.transfer_set import TransferSet
from kdbench.runs.data_digests import same_test_images
from kdbench.runs.evidence import without_local_paths

NOISE: dict[str, Any] = {"name": "digits", "transfer": {"name": "noise"}}


def grid(dataset: Any = NOISE, **changes: Any) -> Expansion:
    return expanded(**({"methods": ["mimic"], "dataset": dataset} | changes))


def test_only_students_with_a_method_train_on_the_transfer_set() -> None:
    with_set, plain = grid(), grid("digits")
    runs = {cell.method: cell.runs[0] for cell in with_set.cells}
    assert runs["mimic"].dataset.transfer == TransferSet(name="noise")
    ids = {cell.method: cell.runs[0].id for cell in plain.cells}
    assert runs["teacher"].id == ids["teacher"] and runs["student"].id == ids["student"]
    assert runs["mimic"].id != ids["mimic"]
    assert runs["mimic"].teacher == {c.method: c.runs[0] for c in plain.cells}["mimic"].teacher
    assert Run.from_json(runs["mimic"].to_json()) == runs["mimic"]


def test_auxiliary_teachers_learn_from_labels() -> None:
    auxiliary = {"student": "r8w5", "method": "kd"}
    helper = {"mimic": {"auxiliary": auxiliary}}
    found = [run for run in grid(methods=[helper]).runs if run.student == "r8w5"]
    assert [run.dataset.transfer for run in found] == [None]


def test_ids_without_a_transfer_set_are_those_of_earlier_versions() -> None:
    assert "transfer" not in Dataset(name="digits").canonical
    assert "transfer" not in first("kd").to_json()["dataset"]


def test_settings_that_determine_the_images_change_the_id() -> None:
    sets = [
        {"name": "noise"},
        {"name": "noise", "images": 100},
        {"name": "cifar10"},
        {"name": "imagefolder", "root": "photos"},
        {"name": "imagefolder", "root": "photos", "label": "others"},
    ]
    ids = {grid({"name": "digits", "transfer": x}).cells[-1].runs[0].id for x in sets}
    assert len(ids) == len(sets)


def test_seed_counts_for_noise_only() -> None:
    def canonical(name: str, **more: Any) -> dict[str, Any]:
        transfer = TransferSet(name=name)
        return Dataset(name="cifar100", transfer=transfer, **more).canonical

    assert canonical("noise", subset_seed=1) != canonical("noise")
    assert canonical("stl10", subset_seed=1) == canonical("stl10")
    assert canonical("cifar10")["transfer"] == {"name": "cifar10", "version": 2}


def test_root_is_not_part_of_the_id_and_not_published(tmp_path: Path) -> None:
    transfer = TransferSet(name="imagefolder", root=str(tmp_path / "photos"))
    dataset = Dataset(name="digits", transfer=transfer)
    assert dataset.canonical["transfer"] == {"name": "imagefolder", "label": "photos"}
    assert dataset.roots == (str(tmp_path / "photos"),)
    run = grid(dataset.model_dump(exclude_none=True)).cells[-1].runs[0]
    public = without_local_paths(run)
    assert public.dataset.roots == ("photos",)
    assert public.id == run.id


def test_root_is_relative_to_the_grid_or_the_working_folder(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    values = {"name": "digits", "transfer": {"name": "imagefolder", "root": "photos"}}
    made = parse(tree(methods=["mimic"], dataset=values), source="g", folders=[tmp_path])
    assert made.dataset.roots == (str(tmp_path / "photos"),)


def test_title_names_the_images() -> None:
    titles = [
        Dataset(name="digits", transfer=TransferSet.model_validate(x)).title
        for x in (
            {"name": "noise"},
            {"name": "noise", "images": 5000},
            {"name": "imagefolder", "root": "/x/photos"},
        )
    ]
    assert titles == [
        "digits, trained on noise",
        "digits, trained on 5,000 noise images",
        "digits, trained on photos",
    ]


def test_test_images_are_those_of_the_data_set() -> None:
    dataset = Dataset.model_validate(NOISE)
    assert same_test_images(dataset, dataset.labelled)


@pytest.mark.parametrize("row", ["mimic", {"kd": {"gamma": 0}}, {"at": {"gamma": 0, "alpha": 1}}])
def test_rows_without_labels_are_possible(row: Any) -> None:
    assert grid(methods=[row]).cells[-1].runs[0].gamma == 0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("kd", "methods.kd: gamma: 1, but the images of dataset.transfer have no labels; "
         "accepted: 0 (set gamma: 0)"),
        ({"dkd": {"gamma": 0}}, "methods.dkd: DKD reads labels, but the images of "
         "dataset.transfer have no labels; accepted: ab, at, "),
        ({"crd": {"gamma": 0}}, "methods.crd: CRD reads labels"),
        ({"crd+nkd": {"gamma": 0, "alpha": 0}}, "CRD and NKD read labels"),
        ({"confidence_penalty": {"gamma": 0}}, "methods.confidence_penalty: a row without a "
         "teacher learns nothing"),
    ],
)  # fmt: skip
def test_rows_that_need_labels_are_refused(row: Any, message: str) -> None:
    with pytest.raises(GridError) as caught:
        grid(methods=[row])
    assert len(caught.value.lines) == 1
    assert message in caught.value.lines[0]
    assert "mimic" in caught.value.lines[0] or "accepted: ab" not in caught.value.lines[0]


@pytest.mark.parametrize(
    ("transfer", "message"),
    [
        ("noise", "dataset.transfer: expected a mapping"),
        ({"name": "nois"}, "dataset.transfer.name: 'nois': unknown; accepted: cifar10, "),
        ({"name": "noise", "images": 0}, "dataset.transfer.images: expected more than 0, not 0"),
        ({"name": "cifar10", "images": 9}, "images is for noise only, not for cifar10"),
        ({"name": "imagefolder"}, "imagefolder needs a root: the folder of the images"),
        ({"name": "noise", "root": "x"}, "root and label are for imagefolder only, not for noise"),
    ],
)
def test_wrong_transfer_sets_are_refused(transfer: Any, message: str) -> None:
    with pytest.raises(GridError) as caught:
        grid({"name": "digits", "transfer": transfer})
    assert len(caught.value.lines) == 1
    assert message in caught.value.lines[0]


def test_teachers_have_no_transfer_set() -> None:
    with pytest.raises(GridError, match=r"teacher\.dataset\.transfer: teachers learn from labels"):
        grid(teacher={"dataset": NOISE})
