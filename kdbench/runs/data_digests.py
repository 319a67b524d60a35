"""Checks that runs on one data set were made of the same images and labels.

A run's id contains the name of its data set, and its record the digest of images and labels. Two
folders with the same name, or a folder whose images have changed, differ only in their digests.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kdbench.errors import UserError
from kdbench.grid.run import Run
from kdbench.grid.settings import Dataset
from kdbench.runs.records import Record
from kdbench.wording import counted

SHOWN = 12
"""Digits of a digest in messages."""


class DataChanged(UserError):
    """Runs were made of other images than others of the same data set; the message is one line."""


@dataclass(frozen=True)
class MadeOf:
    """The data that the recorded runs on a data set were made of.

    Attributes:
        digest: sha256 of images and labels.
        runs: ids of these runs, at most five.
        count: number of these runs.
    """

    digest: str
    runs: tuple[str, ...]
    count: int


def recorded(
    source: str, runs: Iterable[Run], records: Mapping[str, Record]
) -> dict[Dataset, MadeOf]:
    """Return the data that the runs on each data set were made of; without records none.

    Args:
        source: the grid file, for messages.
        runs: the runs.
        records: by the runs' ids.

    Raises:
        DataChanged: runs on one data set were made of different data.
    """
    found: dict[str, dict[str, dict[str, None]]] = {}
    names: dict[Dataset, str] = {}
    for run in runs:
        record = records.get(run.id)
        if record and record.result:
            name = names.get(run.dataset)
            if name is None:
                name = names[run.dataset] = str(run.dataset.canonical)
            found.setdefault(name, {}).setdefault(record.result.data, {})[run.id] = None
    for dataset, name in names.items():
        if len(found[name]) > 1:
            raise DataChanged(
                f"{source}: runs used different data and cannot be combined in one table: "
                f"{_described(found[name])}; {way_out(dataset)}"
            )
    made_of = {}
    for dataset, name in names.items():
        [(digest, ids)] = found[name].items()
        made_of[dataset] = MadeOf(digest, tuple(ids)[:5], len(ids))
    return made_of


def _described(ids_of: Mapping[str, Mapping[str, None]]) -> str:
    """Describe which runs have which digest, the largest group last."""
    *few, (digest, most) = sorted(ids_of.items(), key=lambda item: (len(item[1]), item[0]))
    differing = "; ".join(
        f"{', '.join(list(ids)[:5])}{', ...' if len(ids) > 5 else ''} "
        f"{'has' if len(ids) == 1 else 'have'} {other[:SHOWN]}"
        for other, ids in few
    )
    return f"{differing}; the other {len(most)} (e.g. {next(iter(most))}) {digest[:SHOWN]}"


def check_loaded(dataset: Dataset, digest: str, made_of: Mapping[Dataset, MadeOf]) -> None:
    """Check that loaded data are those of the recorded runs on the same data set.

    Args:
        dataset: what was loaded.
        digest: of the loaded images and labels.
        made_of: from ``recorded``.

    Raises:
        DataChanged: they are not.
    """
    for other, known in made_of.items():
        if known.digest != digest and other.canonical == dataset.canonical:
            more = ", ..." if known.count > len(known.runs) else ""
            were = "was" if known.count == 1 else "were"
            raise DataChanged(
                f"{dataset.root or dataset.name}: {counted(known.count, 'run')} on "
                f"{dataset.title} ({', '.join(known.runs)}{more}) {were} made of other images or "
                f"labels (digest {known.digest[:SHOWN]}, now {digest[:SHOWN]}); {way_out(dataset)}"
            )


def way_out(dataset: Dataset) -> str:
    """Say what to do if the images of a data set have changed."""
    if dataset.roots:
        return "give one of the folders another dataset.label, or train in another --runs"
    return "restore the files, or train in another --runs"


def same_test_images(one: Dataset, other: Dataset) -> bool:
    """Check whether two data sets certainly have the same test images.

    Those of an imagefolder depend on its files.
    """
    folder = "imagefolder" in (one.name, other.name)
    return not folder and choice_of_test_images(one) == choice_of_test_images(other)


def choice_of_test_images(dataset: Dataset) -> dict[str, Any]:
    """Return the settings that choose and resize the test images."""
    training_only = {"validation", "label_noise", "noise_by", "transfer"}
    if dataset.name != "digits":  # whose test images are those that are not drawn for training
        training_only |= {"per_class", "subset_seed"}
    return {key: value for key, value in dataset.canonical.items() if key not in training_only}
