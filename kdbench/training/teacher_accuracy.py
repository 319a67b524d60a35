"""The accuracy of a teacher on the test images of its students."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from kdbench.data.batches import eval_batches
from kdbench.data.dataset import LoadedData
from kdbench.grid.run import Teacher, is_imported
from kdbench.grid.settings import Dataset
from kdbench.runs import records
from kdbench.runs.data_digests import MadeOf, check_loaded, same_test_images
from kdbench.training import evaluation
from kdbench.training.teacher import LoadedTeacher


def on_data(
    loaded: LoadedTeacher,
    runs: Path,
    teacher: Teacher,
    dataset: Dataset,
    data: LoadedData,
    device: torch.device,
) -> LoadedTeacher:
    """Return a teacher with its accuracy on the test images of these data.

    The accuracy in the teacher's record is kept if it was measured on the same images, else it is
    measured again.

    Args:
        loaded: the teacher, with the accuracy in its record.
        runs: folder of runs.
        teacher: the teacher's run.
        dataset: the students' data set.
        data: the same, loaded.
        device: device of the data.

    Raises:
        DataChanged: kdbench trained the teacher on another version of this data set.
    """
    record = records.read(runs, teacher.run)
    if record is None or record.result is None or record.result.data == data.digest:
        return loaded
    trained_on = _dataset(records.read_run_json(runs, teacher.run))
    # An imported teacher was not trained here, so its images may differ.
    if trained_on and not is_imported(teacher.run):
        check_loaded(
            dataset,
            data.digest,
            {trained_on: MadeOf(record.result.data, (teacher.run,), 1)},
        )
        if same_test_images(trained_on, dataset):
            return loaded
    return replace(loaded, acc=measured(loaded, data, device))


def measured(loaded: LoadedTeacher, data: LoadedData, device: torch.device) -> float:
    """Measure the accuracy in percent of a teacher, as trained, on the test images."""
    network = copy.deepcopy(loaded.network).to(device).to(memory_format=torch.channels_last)
    batches = eval_batches(data.test_images, data.test_labels, data, evaluation.BATCH)
    return evaluation.evaluate(lambda images: network(images).logits, batches, device).top1


def _dataset(run: dict[str, Any]) -> Dataset | None:
    """Return the data set of a ``run.json``; None if it has none that this version knows."""
    try:
        return Dataset(**run["dataset"])
    except (KeyError, TypeError, ValueError):
        return None
