"""``kdbench teacher import``: turn a published checkpoint into a run."""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from kdbench import files
from kdbench.data.batches import eval_batches
from kdbench.data.dataset import load
from kdbench.errors import UserError
from kdbench.grid.grid import GridError
from kdbench.grid.name_checks import model_errors
from kdbench.grid.parsing import parse
from kdbench.grid.run import IMPORTED
from kdbench.grid.yaml_tree import parse_yaml
from kdbench.models import size, zoo
from kdbench.models.published_checkpoints import arch_of, fit, read_checkpoint
from kdbench.runs import checksums, environment, records
from kdbench.runs.records import Cost, Record, Result
from kdbench.training import checkpoint, evaluation


@dataclass(frozen=True)
class ImportedTeacher:
    """An imported teacher.

    Attributes:
        id: the run's id.
        arch: architecture.
        acc: test accuracy in percent, measured here.
        dataset: title of the data set.
        classes: number of classes of the data set.
    """

    id: str
    arch: str
    acc: float
    dataset: str
    classes: int

    @property
    def near_chance(self) -> bool:
        """Whether the accuracy is so low that the import is probably wrong.

        That is below three times chance, or, for few classes, halfway from chance to 100 %.
        """
        chance = 100 / self.classes
        return self.acc < min(3 * chance, (100 + chance) / 2)


def import_checkpoint(
    path: Path, arch: str | None, dataset: str, runs: Path, data_root: Path
) -> ImportedTeacher:
    """Read a published checkpoint, measure its accuracy, and store it as a run for grids.

    The run's id depends on the architecture and the weights only. If they were imported before, the
    accuracy on another data set is measured, and the run stays as it is: grids on other data than
    those of its record measure the accuracy again.

    Args:
        path: the checkpoint file.
        arch: architecture; None: derived from the folder's name.
        dataset: a data set's name, or YAML.
        runs: folder of runs.
        data_root: folder of data sets.

    Raises:
        UserError: the file does not fit, or the data is missing; nothing is written.
    """
    name = arch or arch_of(path)
    if name is None:
        raise UserError(f"{path}: no architecture in the folder's name; give --arch")
    if not zoo.known(name):
        raise GridError([f"--arch {line}" for line in model_errors(name)])
    pair = [{"teacher": name, "student": name}]
    tree: dict[str, Any] = {
        "name": "import",
        "dataset": parse_yaml(dataset, f"--dataset {dataset}"),
        "protocol": "semckd",
    }
    grid = parse(tree | {"seeds": [0], "pairs": pair}, source="kdbench teacher import")
    state = read_checkpoint(path)
    data = load(grid.dataset, data_root, torch.device("cpu"))
    network = zoo.create(name, num_classes=data.num_classes, in_channels=data.channels)
    fit(network, state, name=f"{path} as {name}")
    network.to(memory_format=torch.channels_last)
    network.eval()
    batches = eval_batches(data.test_images, data.test_labels, data, evaluation.BATCH)
    found = evaluation.evaluate(lambda images: network(images).logits, batches, torch.device("cpu"))
    acc = found.top1
    weights = checkpoint.digest(network.state_dict())
    source = hashlib.sha256(path.read_bytes()).hexdigest()
    identity = hashlib.sha256(f"{name} {weights}".encode()).hexdigest()
    run_id = f"{IMPORTED}{identity[:16]}"
    imported = ImportedTeacher(run_id, name, acc, grid.dataset.title, data.num_classes)
    folder = records.folder(runs, run_id)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.save(folder, {"model": network.state_dict()}, final=True)
    if records.read(runs, run_id):
        return imported
    run: dict[str, Any] = {"id": run_id, "method": "teacher", "student": name, "file": str(path)}
    run |= {"sha256": source, "dataset": grid.dataset.model_dump(exclude_none=True)}
    text = checksums.add(json.dumps(run, indent=1) + "\n")
    files.write_atomically(folder / "run.json", text)
    result = Result(
        epoch=0, steps=0, train_loss=float("nan"), train_acc=float("nan"), test_loss=found.loss,
        test_acc=acc, test_top5=found.top5, best_acc=acc, best_epoch=0, weights=weights,
        data=data.digest, n_train=len(data.train_labels), n_test=len(data.test_labels),
    )  # fmt: skip
    parameters = size.params(network)
    macs = size.macs(name, data.channels, data.size, data.num_classes)
    cost = Cost(0.0, 0.0, 0.0, parameters, parameters, 0, macs, 0.0)
    measured_on = environment.describe(
        "cpu", torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()
    )
    measured_on |= {"ended": datetime.now(UTC).isoformat(timespec="seconds")}
    records.write(runs, Record(run_id, "done", result=result, cost=cost, environment=measured_on))
    return imported
