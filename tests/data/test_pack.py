"""``benchmarks.pack``: few files, lossless; and errors for missing and damaged files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_files import cifar, pixels, replace_facts
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import packed
from benchmarks.pack import divide, encode, main, pack
from benchmarks.packed import decoded, load_packed
from kdbench.data.dataset import LoadedData, load
from kdbench.data.readers.base import DataError
from kdbench.grid.settings import Dataset

TENSORS = ("train_images", "train_labels", "test_images", "test_labels")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDBENCH_DOWNLOAD", "0")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small CIFAR-100, packed into two parts of several atlases; its archive is in ``data``."""
    cifar(tmp_path / "data", "cifar100", monkeypatch)
    monkeypatch.setattr(packed, "TILES", 70)
    monkeypatch.setattr("benchmarks.pack.TILES", 70)
    pack("cifar100", tmp_path / "data", tmp_path / "packed")
    return tmp_path / "packed"


def same(first: LoadedData, second: LoadedData) -> bool:
    tensors = all(torch.equal(getattr(first, t), getattr(second, t)) for t in TENSORS)
    rest = all(getattr(first, k) == getattr(second, k) for k in ("digest", "mean", "std", "title"))
    return tensors and rest and first.classes == second.classes


def message(folder: Path, name: str = "cifar100") -> str:
    with pytest.raises(DataError) as caught:
        load_packed(folder, Dataset(name=name))
    text = str(caught.value)
    assert "\n" not in text
    return text.replace(str(folder), "PACKED")


def changed(folder: Path, **values: Any) -> None:
    path = folder / "cifar100.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


# -- the same data set ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"per_class": 1}, {"label_noise": 0.5, "subset_seed": 2}, {"size": 8}]
)
def test_packed_equals_the_archive(options: dict[str, Any], folder: Path) -> None:
    dataset = Dataset.model_validate({"name": "cifar100", **options})
    assert same(load_packed(folder, dataset), load(dataset, folder.parent / "data"))


def test_default_is_all_of_cifar100(folder: Path) -> None:
    assert len(load_packed(folder).train_labels) == 200
    assert sorted(f.name for f in folder.iterdir()) == [
        "cifar100-0.bin", "cifar100-1.bin", "cifar100.json",
    ]  # fmt: skip


@pytest.mark.parametrize("form", ["png", "npz"])
def test_unpacked_equals_the_archive(
    form: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "cifar100"
    arguments = ["unpack", str(folder), str(out), "--form", form]
    assert main(arguments) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["dataset"], said["images"]) == ("cifar100", 300)
    data = load(Dataset(name="cifar100"), tmp_path / "data")
    if form == "png":
        assert same(load(Dataset(name="cifar100"), tmp_path / "new"), data)
        assert main(arguments) == 2
        assert f"{out / 'train'} exists" in capsys.readouterr().err
    else:
        with np.load(out / "cifar100.npz") as arrays:
            for name in TENSORS:
                assert np.array_equal(arrays[name], getattr(data, name).numpy())
            assert tuple(arrays["classes"]) == data.classes
        assert same(load(Dataset(name="cifar100"), tmp_path / "new"), data)


@pytest.mark.parametrize("count", [1, 24, 25, 26, 70])
def test_atlas_is_lossless(count: int) -> None:
    images = pixels(count, 32, 32, 3, seed=count)
    assert np.array_equal(decoded(encode(images), count, (32, 32, 3)), images)
    with pytest.raises(ValueError, match="tiles for"):
        decoded(encode(images), count + 25, (32, 32, 3))


# -- size -----------------------------------------------------------------------------------------


@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=12), parts=st.integers(1, 5))
def test_division_is_complete_and_balanced(sizes: list[int], parts: int) -> None:
    runs = divide(sizes, parts, sum(sizes))
    assert len(runs) <= parts
    assert [i for start, end in runs for i in range(start, end)] == list(range(len(sizes)))
    largest = max(sum(sizes[start:end]) for start, end in runs)
    with pytest.raises(DataError):
        divide(sizes, parts, largest - 1)


def test_what_does_not_fit_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cifar(tmp_path / "data", "cifar10", monkeypatch)
    monkeypatch.setattr("benchmarks.pack.TILES", 10)
    command = ["pack", str(tmp_path / "data"), str(tmp_path / "out"), "--dataset", "cifar10"]
    assert main([*command, "--parts", "1", "--mib", "0.05"]) == 2
    assert capsys.readouterr().err == (
        "benchmarks.pack: 0.1 MiB do not fit into 1 parts of 0.05 MiB: each needs up to 0.09 MiB; "
        "3 parts would do\n"
    )
    assert not (tmp_path / "out").exists()
    assert main([*command, "--parts", "3", "--mib", "0.05"]) == 0


def test_incomplete_data_set_is_not_packed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pack", str(tmp_path), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("benchmarks.pack: cifar100: not found and cannot be downloaded")
    assert error.count("\n") == 1


# -- missing and damaged files --------------------------------------------------------------------


def test_missing_files(folder: Path) -> None:
    assert message(folder, "cifar10") == (
        "PACKED/cifar10.json: not found; `python -m benchmarks.pack pack` writes it"
    )
    (folder / "cifar100-1.bin").unlink()
    assert message(folder) == "PACKED/cifar100-1.bin: not found: part 2 of 2"


def test_damaged_parts(folder: Path) -> None:
    part = folder / "cifar100-0.bin"
    content = part.read_bytes()
    part.write_bytes(content[:-1])
    assert message(folder) == (
        f"PACKED/cifar100-0.bin: damaged: {len(content) - 1:,} bytes, expected {len(content):,}"
    )
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    part.write_bytes(flipped)
    assert message(folder).startswith("PACKED/cifar100-0.bin: damaged: its sha256 is not ")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"format": 2}, "written by another version: pack the data set again"),
        ({"dataset": "cifar10"}, "damaged: it describes no such data set"),
        ({"parts": []}, "damaged: 0 atlases, expected 5"),
        ({"parts": [{"bytes": 1}]}, "damaged: 'atlases'"),
        ({"parts": [{"bytes": 1, "atlases": [2]}]}, "damaged: the lengths of the atlases are not"),
        ({"counts": {"train": [2], "test": [1]}}, "damaged: the numbers of classes differ"),
        ({"counts": 3}, "damaged: "),
        ({"digest": "0" * 64}, "damaged: the images have another digest than it says"),
        ({"unknown": 1}, "damaged: "),
    ],
)
def test_damaged_index(values: dict[str, Any], text: str, folder: Path) -> None:
    changed(folder, **values)
    assert message(folder).startswith(f"PACKED/cifar100.json: {text}")


def test_index_that_is_no_json(folder: Path) -> None:
    for content in ("{", "[1]", ""):
        (folder / "cifar100.json").write_text(content)
        assert message(folder).startswith("PACKED/cifar100.json: damaged: ")


def test_other_images_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {
        "train": (pixels(200, 32, 32, 3), [k % 100 for k in range(200)]),
        "test": (pixels(100, 32, 32, 3), list(range(100))),
    }
    replace_facts("cifar100", made, monkeypatch)
    assert "more classes are not those of cifar100" in message(folder)
