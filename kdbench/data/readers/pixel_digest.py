"""A digest of labelled images that does not depend on their order, and one order for all packings.

The digest is the sha256 over the sorted lines ``SPLIT/CLASS/H``, joined by newlines; H is the
sha256 of an image's bytes (height, width, channels) in hexadecimal digits. The canonical order is
by class, then by H: a data set has the same tensors from whatever files it is read.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import torch

from kdbench.data.readers.base import DataError, DataSource, Split


def digest(lines: Iterable[str]) -> str:
    """Compute the digest of images from their lines, in 64 hexadecimal digits."""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def class_digests(lines: Iterable[str]) -> dict[str, str]:
    """Compute ``SPLIT/CLASS`` -> digest of the images of that class."""
    groups: dict[str, list[str]] = {}
    for line in lines:
        groups.setdefault(line.rpartition("/")[0], []).append(line)
    return {name: digest(group) for name, group in groups.items()}


def ordered(source: DataSource) -> tuple[DataSource, list[str]]:
    """Put a data set into the canonical order.

    Returns:
        The data set, and the lines of its digest.
    """
    train, train_lines = _ordered("train", source.train, source.classes)
    test, test_lines = _ordered("test", source.test, source.classes)
    return DataSource(train, test, source.classes), train_lines + test_lines


def _ordered(name: str, split: Split, classes: Sequence[str]) -> tuple[Split, list[str]]:
    images = split.images.contiguous().numpy()
    labels = split.labels.tolist()
    hashes = [hashlib.sha256(image.data).hexdigest() for image in images]
    order = sorted(range(len(labels)), key=lambda i: (labels[i], hashes[i]))
    lines = [f"{name}/{classes[labels[i]]}/{hashes[i]}" for i in order]
    return split.take(torch.tensor(order, dtype=torch.int64)), lines


def check(
    where: object,
    name: str,
    lines: Sequence[str],
    expected: str | None,
    by_class: Mapping[str, str],
) -> str:
    """Compare the digest of a data set with the published one.

    Args:
        where: the files, for messages.
        name: the data set, for messages.
        lines: of the images, from ``ordered``.
        expected: published digest; None: not known, so nothing is compared.
        by_class: ``SPLIT/CLASS`` -> digest of that class or its first digits, to name the class
            that differs; may be empty.

    Returns:
        The digest.

    Raises:
        DataError: the digest is another.
    """
    found = digest(lines)
    if found == expected or expected is None:
        return found
    groups = class_digests(lines)
    wrong = [key for key, value in by_class.items() if not groups.get(key, "").startswith(value)]
    more = f" and {len(wrong) - 1} more classes" if len(wrong) > 1 else ""
    what = f"the images of {wrong[0]}{more}" if wrong else "the images"
    raise DataError(
        f"{where}: {what} are not those of {name} (digest {found[:16]}, expected {expected[:16]})"
    )
