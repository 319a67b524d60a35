"""STL-10, from files of its format."""

from pathlib import Path

import numpy as np
import pytest
from data_files import stl10

from kdbench.data.dataset import load
from kdbench.data.readers.base import DataError
from kdbench.data.readers.by_name import available
from kdbench.grid.settings import Dataset


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDBENCH_DOWNLOAD", "0")


@pytest.mark.parametrize("packed", [False, True])
def test_stl10(packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = stl10(tmp_path, monkeypatch, packed=packed)
    assert available("stl10", tmp_path)[0]
    data = load(Dataset(name="stl10"), tmp_path)
    for split, images, labels in (
        ("train", data.train_images, data.train_labels),
        ("test", data.test_images, data.test_labels),
    ):
        assert np.array_equal(images.numpy(), made[split][0])
        assert labels.tolist() == made[split][1].tolist()
        assert images.is_contiguous()
    assert (data.classes[1], data.num_classes, data.size) == ("class 1", 10, 96)
    assert load(Dataset(name="stl10", size=32), tmp_path).test_images.shape == (10, 32, 32, 3)


def test_error_names_missing_files(tmp_path: Path) -> None:
    advice = (
        f"put stl10_binary.tar.gz (md5 91f7769df0f17e558f3565bffb0c7dfb) into {tmp_path / 'stl10'}"
    )
    assert available("stl10", tmp_path) == (False, advice)
    with pytest.raises(DataError) as error:
        load(Dataset(name="stl10"), tmp_path)
    assert str(error.value) == (
        f"stl10: not found and cannot be downloaded (KDBENCH_DOWNLOAD=0): {advice}"
    )


@pytest.mark.parametrize("file", ["train_X.bin", "test_y.bin"])
def test_error_names_damaged_files(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stl10(tmp_path, monkeypatch)
    path = tmp_path / "stl10" / "stl10_binary" / file
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=f"{file} is damaged"):
        load(Dataset(name="stl10"), tmp_path)
