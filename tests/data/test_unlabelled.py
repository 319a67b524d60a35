"""Transfer sets: images without labels in place of the training set."""

from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import folders
from PIL import Image

from kdbench.data.dataset import LoadedData, load
from kdbench.data.readers.base import DataError
from kdbench.data.readers.built_in import synthetic
from kdbench.data.unlabelled import NO_LABEL, in_channels
from kdbench.grid.settings import Dataset
from kdbench.grid.transfer_set import TransferSet

PLAIN = load(Dataset(name="digits"), Path("data"))


def digits(subset_seed: int | None = None, **options: object) -> LoadedData:
    dataset = {"name": "digits", "subset_seed": subset_seed, "transfer": options}
    return load(Dataset.model_validate(dataset), Path("data"))


def folder_of(images: Path) -> LoadedData:
    transfer = TransferSet(name="imagefolder", root=str(images))
    return load(Dataset(name="digits", transfer=transfer), images.parent)


def test_noise_replaces_the_training_images_only() -> None:
    data = digits(name="noise")
    assert data.train_images.shape == PLAIN.train_images.shape
    assert data.train_images.dtype == torch.uint8
    assert (data.train_labels == NO_LABEL).all()
    assert torch.equal(data.test_images, PLAIN.test_images)
    assert torch.equal(data.test_labels, PLAIN.test_labels)
    assert (data.mean, data.std, data.classes) == (PLAIN.mean, PLAIN.std, PLAIN.classes)
    counts = torch.bincount(data.train_images.flatten().long(), minlength=256)
    expected = data.train_images.numel() / 256
    assert ((counts - expected).abs() < 6 * expected**0.5).all()


def test_noise_depends_on_the_seed_of_the_subset_and_larger_noise_is_other_data() -> None:
    first, again = digits(name="noise", images=50), digits(name="noise", images=50)
    assert len(first.train_images) == len(first.train_labels) == 50
    assert torch.equal(first.train_images, again.train_images)
    other, more = digits(subset_seed=1, name="noise", images=50), digits(name="noise", images=60)
    assert not torch.equal(other.train_images, first.train_images)
    assert first.digest == again.digest
    assert len({x.digest for x in (PLAIN, first, other, more)}) == 4


def test_images_of_another_data_set_in_size_and_channels_of_the_data() -> None:
    data = digits(name="synthetic")
    images = synthetic(Dataset(name="synthetic", size=8), Path("data")).train.images
    assert torch.equal(data.train_images, in_channels(images, 1))
    assert (data.train_labels == NO_LABEL).all()
    back = load(
        Dataset(name="synthetic", size=16, transfer=TransferSet(name="digits")), Path("data")
    )
    assert back.train_images.shape == (900, 16, 16, 3)
    assert torch.equal(back.train_images[..., 0], back.train_images[..., 2])


def test_held_out_images_keep_their_labels() -> None:
    dataset = Dataset(name="digits", validation=0.2, transfer=TransferSet(name="noise"))
    data = load(dataset, Path("data"))
    assert data.val_labels is not None
    assert len(data.train_images) == 720
    assert torch.bincount(data.val_labels).tolist() == [18] * 10


def test_grey_values() -> None:
    colours = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [7, 7, 7]])
    images = colours.to(torch.uint8).reshape(5, 1, 1, 3)
    assert in_channels(images, 1).flatten().tolist() == [76, 150, 29, 255, 7]
    assert in_channels(in_channels(images, 1), 3).shape == (5, 1, 1, 3)


def save(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((12, 12, 3), value, np.uint8)).save(path)


def test_folder_of_images_needs_no_classes(tmp_path: Path) -> None:
    save(tmp_path / "photos" / "a.png", 10)
    save(tmp_path / "photos" / "deep" / "er" / "b.png", 20)
    data = folder_of(tmp_path / "photos")
    assert data.train_images.shape == (2, 8, 8, 1)
    assert sorted(data.train_images[:, 0, 0, 0].tolist()) == [10, 20]


def test_test_images_of_a_folder_are_not_trained_on(tmp_path: Path) -> None:
    root = folders(tmp_path / "pets")
    expected = sum(1 for path in (root / "train").rglob("*") if path.is_file())
    data = folder_of(root)
    assert len(data.train_images) == expected


@pytest.mark.parametrize(("made", "message"), [(False, "not found"), (True, "no images")])
def test_folders_without_images_are_refused(tmp_path: Path, made: bool, message: str) -> None:
    root = tmp_path / "photos"
    if made:
        root.mkdir()
    with pytest.raises(DataError, match=f"^transfer set imagefolder: {root}.*{message}"):
        folder_of(root)
