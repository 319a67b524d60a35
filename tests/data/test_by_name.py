"""The reader of each data set, and the table of facts that names it."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from data_files import folders
from pydantic import ValidationError
from small_grids import kdbench

from kdbench.cost.counting import DataShape
from kdbench.cost.estimate import data_shape
from kdbench.data.dataset import load
from kdbench.data.readers import downloaded
from kdbench.data.readers.base import DataError, DataSource, Split
from kdbench.data.readers.by_name import available, reader
from kdbench.grid.dataset_facts import DATASETS, DatasetFacts, ImageShape
from kdbench.grid.settings import Dataset


@pytest.fixture(autouse=True)
def no_debian_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(downloaded, "DEBIAN", tmp_path / "no-debian")


def test_available_knows_every_data_set(tmp_path: Path) -> None:
    assert {name for name in DATASETS if available(name, tmp_path)[0]} == {"digits", "synthetic"}
    assert available("imagefolder", folders(tmp_path / "pets"))[0]
    with pytest.raises(DataError, match="there are digits, fashion_mnist"):
        available("cifar", tmp_path)
    assert not (tmp_path / "cifar10").exists()


def test_new_data_set_is_a_reader_and_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("kdbench.data.readers.stripes")

    def stripes(dataset: Dataset, root: Path) -> DataSource:
        images = torch.arange(2, dtype=torch.uint8)[:, None, None, None].expand(2, 4, 4, 1) * 200
        split = Split(images.contiguous(), torch.arange(2))
        return DataSource(split, split, ("dark", "light"))

    vars(module).update(stripes=stripes, available=lambda name, root: (True, f"{name}: {root}"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    row = DatasetFacts("stripes.stripes", ImageShape(1, 4, 2), 2, 2)
    monkeypatch.setitem(DATASETS, "stripes", row)
    dataset = Dataset.model_construct(name="stripes")
    assert dataset.canonical == {"name": "stripes"}
    assert available("stripes", tmp_path) == (True, f"stripes: {tmp_path}")
    assert data_shape(dataset) == DataShape(1, 4, 2, 2, 2)
    data = load(dataset, tmp_path)
    assert (data.channels, data.size, data.num_classes) == row.shape
    assert "stripes" in kdbench("datasets", "--data", tmp_path).stdout


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_has_a_reader(name: str) -> None:
    assert callable(reader(name))
    with pytest.raises(ValidationError, match="name"):
        Dataset(name=f"{name}s")


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_facts_are_those_of_the_images(name: str, tmp_path: Path) -> None:
    facts, data = DATASETS[name], load(Dataset(name=name), tmp_path)
    assert (data.channels, data.size, data.num_classes) == facts.shape
    counts = len(data.train_labels), len(data.test_labels)
    assert counts == (facts.train_images, facts.test_images)
