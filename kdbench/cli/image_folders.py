"""Check of image folders against the records of the runs that were made of them."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from kdbench.grid.run import Run
from kdbench.runs import data_digests
from kdbench.runs.records import Record


def check_image_folders(
    source: str, runs: Iterable[Run], records: Mapping[str, Record], data: Path
) -> None:
    """Check that image folders still hold what the recorded runs were made of.

    A folder that is not on this machine is not checked.

    Args:
        source: the grid file or the folder of runs, for messages.
        runs: the runs of a grid.
        records: by the runs' ids.
        data: folder of data sets, with the cache of decoded images.

    Raises:
        DataChanged: an image or a label has changed, or another folder has the same label.
        DataError: a folder cannot be read.
    """
    in_folders = [
        run
        for run in runs
        if run.dataset.roots and all(Path(root).is_dir() for root in run.dataset.roots)
    ]
    if not in_folders:
        return
    made_of = data_digests.recorded(source, in_folders, records)
    if not made_of:
        return
    import torch

    from kdbench.data.dataset import load

    for dataset in made_of:
        digest = load(dataset, data, torch.device("cpu")).digest
        data_digests.check_loaded(dataset, digest, made_of)
