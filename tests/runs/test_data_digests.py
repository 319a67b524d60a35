"""Two folders of one name, and images that change between runs, are noticed."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_grids import evidence_of, make_cells, make_grid, make_record, make_records, typical
from PIL import Image
from small_grids import cell, expanded, kdbench, mistakes, write
from tiny_runs import CPU, alone, data, stop_after, train

from kdbench.grid.expand import expand
from kdbench.grid.parsing import load
from kdbench.grid.settings import Dataset
from kdbench.report import protocol_differences, several_grids
from kdbench.runs import data_digests, records
from kdbench.runs.data_digests import DataChanged, MadeOf
from kdbench.runs.evidence import Evidence
from kdbench.training.cohort import Cohort, Stopped
from kdbench.training.context import TrainingContext

FOLDER = Dataset(name="imagefolder", root="a/photos")


def photos(folder: Path, seed: int) -> Path:
    """Write 40 images of 8x8 pixels in two classes."""
    rng = np.random.default_rng(seed)
    for part in ("train", "test"):
        for k, name in enumerate(("cat", "dog")):
            place = folder / "photos" / part / name
            place.mkdir(parents=True)
            for i in range(10):
                pixels = rng.integers(0, 100, (8, 8, 3)) + 100 * k
                Image.fromarray(pixels.astype(np.uint8)).save(place / f"{i}.png")
    return folder / "photos"


def grid_of(folder: Path, name: str, root: Path, *methods: str, **changes: Any) -> Path:
    (folder / name).mkdir()
    values: dict[str, Any] = {
        "name": name,
        "dataset": {"name": "imagefolder", "root": str(root)},
        "protocol": {"preset": "demo", "epochs": 1, "batch_size": 8},
        "methods": list(methods),
    }
    return write(folder / name, **values | changes)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder with two folders of photos of one name, and a grid trained on the first."""
    photos(tmp_path / "a", 0)
    photos(tmp_path / "b", 1)
    grid = grid_of(tmp_path, "first", tmp_path / "a" / "photos", "kd")
    assert kdbench("run", "--grid", grid, *folders(tmp_path)).exit_code == 0
    return tmp_path


def folders(place: Path, runs: str = "runs") -> tuple[object, ...]:
    return ("--runs", place / runs, "--results", place / "results")


def data_of(place: Path) -> tuple[object, ...]:
    return ("--data", place / "data")


@pytest.mark.parametrize("kind", ["debug", pytest.param("local", marks=pytest.mark.slow)])
def test_other_folder_of_the_same_name_is_refused_before_training(place: Path, kind: str) -> None:
    grid = grid_of(place, "second", place / "b" / "photos", "kd", "at")
    executor = ("--executor", kind, "--workers", 1)
    [told] = mistakes("run", "--grid", grid, *folders(place), *data_of(place), *executor)
    assert "3 runs on photos" in told and "made of other images or labels (digest " in told
    assert "another dataset.label, or train in another --runs" in told
    missing = cell(expand(load(grid)), "at").runs[0]
    assert not records.has_record(place / "runs", missing.id)
    label = ("--set", "dataset.label=b")
    done = kdbench("run", "--grid", grid, *folders(place), *data_of(place), *label)
    assert done.exit_code == 0


def test_runs_of_another_folder_are_not_reported(place: Path) -> None:
    """Even if none is missing, so that nothing is trained."""
    grid = grid_of(place, "second", place / "b" / "photos", "kd")
    for command in (("run",), ("report",), ("compare", "kd", "student")):
        [line] = mistakes(*command, "--grid", grid, *folders(place), *data_of(place))
        assert "3 runs on photos" in line and "were made of other images or labels" in line


def test_runs_on_changed_images_are_not_reported(place: Path) -> None:
    command = ("report", "--grid", place / "first" / "grid.yaml", *folders(place), *data_of(place))
    assert kdbench(*command).exit_code == 0
    image = place / "a" / "photos" / "train"
    first, second = sorted(image.rglob("*.png"))[:2]
    shutil.copyfile(second, first)
    [line] = mistakes(*command)
    assert "were made of other images or labels" in line
    [line] = mistakes("select", *command[1:3], *folders(place), *data_of(place))
    assert "were made of other images or labels" in line
    shutil.rmtree(place / "a" / "photos")  # as on a machine that has the records only
    assert kdbench(*command).exit_code == 0


def test_trained_runs_on_changed_images_are_not_analysed(place: Path) -> None:
    kd = cell(expand(load(place / "first" / "grid.yaml")), "kd").runs[0]
    command = ("analyse", "fidelity", kd.id, *folders(place), *data_of(place))
    assert kdbench(*command).exit_code == 0
    shutil.rmtree(place / "a" / "photos")
    shutil.copytree(place / "b" / "photos", place / "a" / "photos")
    for changed in (command, ("transfer", kd.id, "--dataset", "synthetic", *command[3:])):
        [line] = mistakes(*changed)
        assert kd.id in line and "was made of other images or labels" in line


def test_stored_transfer_result_is_not_that_of_other_images(place: Path) -> None:
    kd = cell(expand(load(place / "first" / "grid.yaml")), "kd").runs[0]
    stored = place / "runs" / kd.id / "transfer"
    found = []
    for folder in ("a", "b", "b"):
        target = f"{{name: imagefolder, root: {place / folder / 'photos'}}}"
        flags = (*folders(place), *data_of(place), "--protocol", "{epochs: 1, batch_size: 8}")
        assert kdbench("transfer", kd.id, "--dataset", target, *flags).exit_code == 0
        [path] = stored.glob("*.json")
        found.append((path.read_text(), path.stat().st_mtime_ns))
    assert found[0][0] != found[1][0] and found[1] == found[2]


def test_reports_refuse_records_of_other_images(place: Path) -> None:
    """A grid whose runs were trained in two folders of runs, which were then combined."""
    grid = grid_of(place, "second", place / "b" / "photos", "kd", "at")
    assert kdbench("run", "--grid", grid, *folders(place, "runs2"), *data_of(place)).exit_code == 0
    missing = cell(expand(load(grid)), "at").runs[0].id
    shutil.copytree(place / "runs2" / missing, place / "runs" / missing)
    for command in (("report",), ("run",), ("compare", "kd", "at")):
        [line] = mistakes(*command, "--grid", grid, *folders(place))
        assert f"{missing} has " in line and "another dataset.label" in line
    student = cell(expand(load(grid)), "student").runs[0].id
    [line] = mistakes("compare", student, missing, *folders(place))
    assert "measured on different data (digests " in line and "another dataset.label" in line


def test_teachers_count_too() -> None:
    grid = make_grid()
    cells = make_cells(grid, ["kd"])
    found = make_records(cells, typical)
    teacher = cells[0].runs[0]
    found[teacher.id] = make_record(teacher, 95.0, data="e" * 64)
    runs = [run for one in cells for run in one.runs]
    with pytest.raises(DataChanged, match=f"{teacher.id} has eeeeeeeeeeee; the other 6"):
        data_digests.recorded("grid.yaml", runs, found)
    # A teacher on all images, of students on few of them, has other data by intent.
    full = [replace(teacher, dataset=Dataset(name="digits", per_class=5)), *runs[1:]]
    found[full[0].id] = make_record(full[0], 95.0, data="e" * 64)
    made_of = data_digests.recorded("grid.yaml", full, found)
    assert {made.digest[:1] for made in made_of.values()} == {"d", "e"}


def test_several_grids_of_one_data_set_have_the_same_images(tmp_path: Path) -> None:
    def evidence(name: str, seed: int, digest: str) -> Evidence:
        grid = make_grid(name=name, source=f"{name}.yaml", seeds=(seed,))
        # Without the teacher, which both grids share.
        cells = make_cells(grid, ["kd"])[1:]
        runs = [run for one in cells for run in one.runs]
        return evidence_of(
            grid, cells, {run.id: make_record(run, 80.0, data=digest * 64) for run in runs}
        )

    protocol_differences.check_same_data([evidence("a", 0, "d"), evidence("b", 1, "d")])
    changed = [evidence("a", 0, "d"), evidence("b", 1, "e")]
    with pytest.raises(DataChanged, match=r"^a.yaml, b.yaml: runs used different data"):
        protocol_differences.check_same_data(changed)
    with pytest.raises(DataChanged):
        several_grids.write(changed, tmp_path)
    assert not any(tmp_path.iterdir())


def test_begun_run_is_not_resumed_on_other_images(tmp_path: Path) -> None:
    run = alone()
    with pytest.raises(Stopped):
        train([run], tmp_path, stop=stop_after(3))
    changed = replace(data(), digest="e" * 64)
    context = TrainingContext(tmp_path, CPU)
    with pytest.raises(DataChanged, match=rf"1 run on .* \({run.id}\) was made of other images"):
        Cohort([run], None, changed, context).train()
    assert not records.has_record(tmp_path, run.id)
    Cohort([run], None, data(), context).train()
    assert records.has_record(tmp_path, run.id)


def test_check_of_loaded_data_names_both_digests() -> None:
    made_of = {FOLDER: MadeOf("1" * 64, ("r1", "r2"), 7)}
    data_digests.check_loaded(FOLDER, "1" * 64, made_of)
    data_digests.check_loaded(FOLDER.model_copy(update={"per_class": 3}), "2" * 64, made_of)
    other = FOLDER.model_copy(update={"root": "b/photos"})
    with pytest.raises(DataChanged) as error:
        data_digests.check_loaded(other, "2" * 64, made_of)
    assert str(error.value) == (
        "b/photos: 7 runs on photos (r1, r2, ...) were made of other images or labels (digest "
        "111111111111, now 222222222222); give one of the folders another dataset.label, or train "
        "in another --runs"
    )
    digits = {Dataset(name="digits"): MadeOf("1" * 64, ("r1",), 1)}
    with pytest.raises(DataChanged, match=r"r1.* was made of .* restore the files, or train"):
        data_digests.check_loaded(Dataset(name="digits"), "2" * 64, digits)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"name": "cifar100"}, {"name": "cifar100", "per_class": 125, "label_noise": 0.3}, True),
        ({"name": "cifar100"}, {"name": "cifar100", "size": 32, "validation": 0.2}, True),
        ({"name": "cifar100"}, {"name": "cifar100", "size": 16}, False),
        ({"name": "cifar100"}, {"name": "cifar10"}, False),
        ({"name": "digits"}, {"name": "digits", "per_class": 10}, False),
        ({"name": "imagefolder", "root": "a"}, {"name": "imagefolder", "root": "a"}, False),
    ],
)
def test_same_test_images(one: dict[str, Any], other: dict[str, Any], same: bool) -> None:
    assert data_digests.same_test_images(Dataset(**one), Dataset(**other)) is same


def test_small_grid_trains_as_before(tmp_path: Path) -> None:
    """A grid whose runs are recorded with one digest can train its missing runs."""
    grid = write(tmp_path)
    assert kdbench("run", "--grid", grid, *folders(tmp_path)).exit_code == 0
    more = ("--set", "methods=[kd, at]")
    assert kdbench("run", "--grid", grid, *folders(tmp_path), *more).exit_code == 0
    assert all(
        records.has_record(tmp_path / "runs", run.id) for run in expanded(methods=["kd", "at"]).runs
    )
