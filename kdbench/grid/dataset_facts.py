"""Facts about every data set: its reader, shape, number of images and channel statistics.

To add a data set, write a reader in ``kdbench/data/readers`` and add a row to ``DATASETS``.
"""

from typing import NamedTuple

Channels = tuple[float, ...]


class ImageShape(NamedTuple):
    """Shape of a data set's images.

    Attributes:
        channels: 1 or 3.
        size: height and width in pixels.
        classes: number of classes.
    """

    channels: int
    size: int
    classes: int


class DatasetFacts(NamedTuple):
    """A row of ``DATASETS``.

    Attributes:
        reader: ``module.function`` in ``kdbench/data/readers``. The module also has a function
            ``available(name, root)``.
        shape: None if it depends on the user's files.
        train_images: number of training images; 0 if it depends on the user's files.
        test_images: number of test images, likewise.
        mean_std: mean and standard deviation per channel, of images in [0, 1], as papers use
            them; None: computed from the training images.
        digest: of all images with their classes, as ``kdbench.data.readers.pixel_digest`` computes
            it; None: not known, so not checked.
        version: of the order and the content that the reader returns. It is part of the ids of runs
            from 2 on; raise it if results on this data set change.
    """

    reader: str
    shape: ImageShape | None = None
    train_images: int = 0
    test_images: int = 0
    mean_std: tuple[Channels, Channels] | None = None
    digest: str | None = None
    version: int = 1


DATASETS = {
    "digits": DatasetFacts("built_in.digits", ImageShape(1, 8, 10), 900, 897),
    "fashion_mnist": DatasetFacts(
        "downloaded.fashion_mnist", ImageShape(1, 28, 10), 60_000, 10_000
    ),
    "cifar10": DatasetFacts(
        "cifar.cifar",
        ImageShape(3, 32, 10),
        50_000,
        10_000,
        ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        version=2,
    ),
    "cifar100": DatasetFacts(
        "cifar.cifar",
        ImageShape(3, 32, 100),
        50_000,
        10_000,
        ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
        digest="e396433bed83e0ff6c074f2786248dced2a1ee4f74a8f7b61dbe34b95662e293",
        version=2,
    ),
    "stl10": DatasetFacts("downloaded.stl10", ImageShape(3, 96, 10), 5_000, 8_000),
    "imagefolder": DatasetFacts("image_folder.imagefolder"),
    "synthetic": DatasetFacts("built_in.synthetic", ImageShape(3, 32, 10), 512, 256),
}
"""Name in grid files -> facts; lists of data sets are in this order."""
