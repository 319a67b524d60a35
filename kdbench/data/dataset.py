"""Data sets as uint8 tensors on the device: read, resized, split.

All images of a data set have one square size and are held in memory once, as [N, H, W, C]. Data
that cannot be read raise a ``DataError`` of one line, which names the file and the remedy.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.data import unlabelled
from kdbench.data.readers.base import DataError, DataSource, Split, draw, line, resize
from kdbench.data.readers.by_name import reader
from kdbench.grid.dataset_facts import DATASETS
from kdbench.grid.settings import Dataset
from kdbench.rng import generator


@dataclass(frozen=True, eq=False)
class LoadedData:
    """A data set, ready to train on.

    Attributes:
        name: a key of ``DATASETS``.
        title: name in tables.
        classes: names of the classes, in the order of the labels.
        train_images: uint8 [N, H, W, C].
        train_labels: int64 [N], with label noise if the grid asks for it; ``NO_LABEL`` of
            ``kdbench.data.unlabelled`` for images of a transfer set.
        test_images: uint8 [N, H, W, C].
        test_labels: int64 [N].
        val_images: held-out training images, uint8 [N, H, W, C], or None.
        val_labels: int64 [N], or None.
        mean: per channel, of images in [0, 1].
        std: standard deviation per channel, of images in [0, 1].
        digest: sha256 over all images and labels.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    val_images: Tensor | None
    val_labels: Tensor | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    digest: str
    _padded: dict[int, Tensor] = field(default_factory=dict, repr=False)

    def padded(self, pad: int) -> Tensor:
        """Return zero-padded training images, [N, H + 2*pad, W + 2*pad, C], made once."""
        if pad and pad not in self._padded:
            self._padded[pad] = F.pad(self.train_images, (0, 0, pad, pad, pad, pad)).contiguous()
        return self._padded[pad] if pad else self.train_images

    @property
    def num_classes(self) -> int:
        """Number of classes, K."""
        return len(self.classes)

    @property
    def size(self) -> int:
        """Height and width in pixels."""
        return self.train_images.shape[1]

    @property
    def channels(self) -> int:
        """Number of channels, 1 or 3."""
        return self.train_images.shape[3]


def load(dataset: Dataset, root: Path, device: torch.device | str = "cpu") -> LoadedData:
    """Read a data set into memory.

    Args:
        dataset: data set, subset and size of the images.
        root: folder of all data sets; the files of this data set are in ``root/name``, and are
            downloaded into it.
        device: device of the tensors.

    Raises:
        DataError: files are missing or damaged, or a class has too few images.
    """
    try:
        root = Path(root).expanduser()
        data = prepare(dataset, reader(dataset.name)(dataset, root), device)
    except (DataError, OSError) as error:
        raise DataError(f"{dataset.name}: {line(error)}") from error
    return with_transfer_set(data, dataset, root) if dataset.transfer else data


def with_transfer_set(data: LoadedData, dataset: Dataset, root: Path) -> LoadedData:
    """Return data whose training images are those of the transfer set, without labels.

    Test and held-out images, and the normalisation, stay those of ``data``.

    Raises:
        DataError: files are missing or damaged.
    """
    assert dataset.transfer is not None
    try:
        images = unlabelled.read(
            dataset.transfer,
            root,
            size=data.size,
            channels=data.channels,
            count=len(data.train_images),
            seed=dataset.subset_seed or 0,
        )
    except (DataError, OSError) as error:
        raise DataError(f"transfer set {dataset.transfer.name}: {line(error)}") from error
    device = data.train_images.device
    return replace(
        data,
        train_images=images.to(device),
        train_labels=torch.full((len(images),), unlabelled.NO_LABEL, device=device),
        digest=hashlib.sha256(f"{data.digest} {digest(images)}".encode()).hexdigest(),
        _padded={},
    )


def prepare(dataset: Dataset, source: DataSource, device: torch.device | str) -> LoadedData:
    """Draw a data set's subset and label noise, resize its images, and move it to a device.

    Raises:
        DataError: a class has too few images.
    """
    train, test, classes = source
    train, val = _split(train, dataset, classes)
    train = train._replace(labels=_noisy(train.labels, dataset, classes))
    if dataset.size:
        train = train._replace(images=resize(train.images, dataset.size))
        test = test._replace(images=resize(test.images, dataset.size))
        val = val and val._replace(images=resize(val.images, dataset.size))
    mean, std = DATASETS[dataset.name].mean_std or statistics(train.images)
    return LoadedData(
        name=dataset.name,
        title=dataset.title,
        classes=classes,
        train_images=train.images.to(device),
        train_labels=train.labels.to(device),
        test_images=test.images.to(device),
        test_labels=test.labels.to(device),
        val_images=val.images.to(device) if val else None,
        val_labels=val.labels.to(device) if val else None,
        mean=mean,
        std=std,
        digest=digest(*train, *test, *(val or ())),
    )


def _split(train: Split, dataset: Dataset, classes: Sequence[str]) -> tuple[Split, Split | None]:
    """Split a training set into the part to train on and the held-out part."""
    seed = dataset.subset_seed or 0
    if dataset.per_class:
        wanted = [dataset.per_class] * len(classes)
        train = train.take(draw(train.labels, wanted, seed, "subset", classes)[0])
    if not dataset.validation:
        return train, None
    counts = torch.bincount(train.labels, minlength=len(classes)).tolist()
    wanted = [max(1, round(dataset.validation * count)) for count in counts]
    held, kept = draw(train.labels, wanted, seed, "validation", classes, spare=1)
    return train.take(kept), train.take(held)


def _noisy(labels: Tensor, dataset: Dataset, classes: Sequence[str]) -> Tensor:
    """Return the labels to train on, [N], with label noise if the data set asks for it.

    Source: Chen et al., AAAI 2021, branch label-noise of the authors' code: 50, 150 and 250 of the
    500 images of a class. By mistake, that code stores the noise by image and looks it up by class.
    """
    if not dataset.label_noise:
        return labels
    seed, count = dataset.subset_seed or 0, len(classes)
    sizes = torch.bincount(labels, minlength=count).tolist()
    wanted = [round(dataset.label_noise * size) for size in sizes]
    chosen, _ = draw(labels, wanted, seed, "noise", classes)
    drawn = torch.randint(count, (len(chosen),), generator=generator(seed, "noise labels"))
    if dataset.noise_by != "class":
        return labels.index_copy(0, chosen, drawn)
    became = torch.arange(count)
    of_class = chosen < count  # image number c stands for class c
    became[chosen[of_class]] = drawn[of_class]
    return became[labels]


def statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Compute mean and standard deviation per channel of uint8 [N, H, W, C], scaled to [0, 1]."""
    values = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in images.unbind(3):
        counts = torch.bincount(channel.flatten(), minlength=256).double()  # exact in any order
        mean.append(float(counts @ values / counts.sum()))
        std.append(float(counts @ (values - mean[-1]) ** 2 / counts.sum()) ** 0.5 or 1.0)
    return tuple(mean), tuple(std)


def digest(*tensors: Tensor) -> str:
    """Compute the sha256 of shapes and contents."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.contiguous().numpy().data)
    return total.hexdigest()
