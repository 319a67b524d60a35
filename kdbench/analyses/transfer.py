"""Transfer: accuracy of a linear classifier on a student's frozen features, on other data.

Source: Chen et al., AAAI 2021, and Tian et al., ICLR 2020, train students on CIFAR-100, freeze them
and train a new classifier on STL-10 or Tiny-ImageNet at 32x32. The recipe is that of the SemCKD
authors' code except for batch norm. Their code keeps batch norm in train mode, so its statistics
adapt to the new data and not only the classifier changes: ``adapt`` does the same. The default
freezes batch norm. Features are the student's embedding, even if a method defines its own
prediction.
"""

import copy
import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench import NUMERICS, files
from kdbench.analyses.loading import Library
from kdbench.analyses.trained_run import AnalysisError
from kdbench.data.batches import eval_batches, train_batches
from kdbench.data.dataset import LoadedData
from kdbench.errors import UserError
from kdbench.grid.run import Run
from kdbench.grid.settings import Dataset, Schedule, Training
from kdbench.method import Features
from kdbench.models.network import Network
from kdbench.rng import key
from kdbench.runs import checksums, records
from kdbench.training import evaluation
from kdbench.training.schedule import learning_rate

TRAINING = Training(batch_size=128, schedule=Schedule(milestones=(150, 180, 210)))
"""240 epochs of SGD at a learning rate of 0.05, divided by 10 after 150, 180 and 210; augmented."""

BatchNorm = Literal["frozen", "adapt"]


@dataclass(frozen=True)
class Transfer:
    """The target data set and the training of the classifier.

    Attributes:
        dataset: target data set, resized to the images that the network was trained on.
        training: hyper-parameters of the classifier's training.
        batch_norm: mode of the network's batch norm while the classifier trains.
    """

    dataset: Dataset
    training: Training = TRAINING
    batch_norm: BatchNorm = "frozen"

    @property
    def canonical(self) -> dict[str, Any]:
        """Everything that affects the result, apart from the run."""
        return {
            "numerics": NUMERICS,
            "dataset": self.dataset.canonical,
            "training": self.training.canonical,
            "batch_norm": self.batch_norm,
        }

    @property
    def key(self) -> str:
        """Name of the file: the data set and 8 digits of a hash of ``canonical``."""
        text = json.dumps(self.canonical, sort_keys=True)
        return f"{self.dataset.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class TransferResult:
    """The result for one run, ``runs/<id>/transfer/<key>.json``; accuracies in percent.

    Attributes:
        test_acc: headline: test accuracy after the last epoch.
        best_acc: test accuracy of the best epoch, chosen on the test set.
        weights: sha256 of the frozen network.
        data: sha256 of the target images and labels.
        curve: test accuracy after every epoch.
    """

    run: str
    transfer: dict[str, Any]
    test_acc: float
    best_acc: float
    best_epoch: int
    train_acc: float
    n_train: int
    n_test: int
    weights: str
    data: str
    curve: list[float]


def run(library: Library, student_run: Run, transfer: Transfer) -> TransferResult:
    """Return the transfer result of a run, stored earlier or computed and stored now.

    Raises:
        UserError: the images have other channels than the network expects, data is missing, or the
            run was trained on other images.
    """
    path = records.folder(library.runs, student_run.id) / "transfer" / f"{transfer.key}.json"
    record = records.read(library.runs, student_run.id)
    assert record is not None and record.result is not None  # Library.finished() has checked it
    weights = record.result.weights
    stored = _read(path)
    if stored is not None and stored.weights == weights and _same_images(library, transfer, stored):
        return stored
    source, target = library.data(student_run.dataset), library.data(transfer.dataset)
    network = library.network(student_run)
    if target.channels != source.channels:
        raise AnalysisError(
            f"{transfer.dataset.title} has {target.channels} channels, run {student_run.id} was "
            f"trained on {source.channels} ({student_run.dataset.title})"
        )
    # Normalise the images as in the network's training.
    target = dataclasses.replace(target, mean=source.mean, std=source.std)
    train_acc, curve = learn(network, target, transfer, student_run.seed)
    best = max(curve)
    result = TransferResult(
        run=student_run.id,
        transfer=transfer.canonical,
        test_acc=curve[-1],
        best_acc=best,
        best_epoch=curve.index(best) + 1,
        train_acc=train_acc,
        n_train=len(target.train_labels),
        n_test=len(target.test_labels),
        weights=weights,
        data=target.digest,
        curve=curve,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomically(path, checksums.add(json.dumps(asdict(result), indent=1) + "\n"))
    return result


def _same_images(library: Library, transfer: Transfer, stored: TransferResult) -> bool:
    """Check that a stored result is of the present images, which two folders of one name share."""
    named = transfer.dataset.name != "imagefolder"
    return named or library.data(transfer.dataset).digest == stored.data


def _read(path: Path) -> TransferResult | None:
    try:
        content = path.read_bytes()
        intact = checksums.verify(content)
        values = json.loads(content)
        if checksums.KEY in values and not intact:
            raise ValueError(checksums.MISMATCH)
        values.pop(checksums.KEY, None)
        result = TransferResult(**values)
        for acc in (result.test_acc, result.best_acc, result.train_acc, *result.curve):
            if not 0 <= acc <= 100:
                raise ValueError(f"an accuracy of {acc} %")
        return result
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path}: not a transfer result: {error}; delete the file to compute it again"
        ) from error


def learn(
    network: Network, data: LoadedData, transfer: Transfer, seed: int
) -> tuple[float, list[float]]:
    """Train a linear classifier on a network's embeddings, without changing the network.

    Args:
        network: frozen network in eval mode.
        data: target data set, normalised for the network.
        transfer: settings of the training.
        seed: seed of the classifier's initial weights, the order of images and augmentation.

    Returns:
        Train accuracy of the last epoch, and test accuracy after every epoch, in percent.
    """
    training, device = transfer.training, data.train_labels.device
    adapts = transfer.batch_norm == "adapt"
    network = copy.deepcopy(network) if adapts else network
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(key(seed, "init", "transfer"))
        classifier = nn.Linear(network.head.in_features, data.num_classes)
    classifier.to(device)
    optimizer = torch.optim.SGD(
        classifier.parameters(),
        lr=training.lr,
        momentum=training.momentum,
        nesterov=training.nesterov,
        weight_decay=training.weight_decay,
    )
    embed = partial(_embedding, network)
    # Embeddings that do not change between epochs are computed once.
    constant = not (training.crop_pad or training.flip or adapts)
    train = _embed_all(embed, data.train_images, data.train_labels, data) if constant else None
    test = None if adapts else _embed_all(embed, data.test_images, data.test_labels, data)
    curve = []
    for epoch in range(1, training.epochs + 1):
        correct = torch.zeros((), dtype=torch.int64, device=device)
        steps = len(data.train_labels) // training.batch_size
        network.train(adapts)
        batches = train_batches(
            data,
            batch_size=training.batch_size,
            seed=seed,
            epoch=epoch,
            purpose="transfer",
            crop_pad=training.crop_pad,
            flip=training.flip,
        )
        for step, (images, labels, index) in enumerate(batches):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(training, epoch, step, steps)
            logits = classifier(embed(images) if train is None else train[index])
            F.cross_entropy(logits, labels).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            correct += (logits.argmax(1) == labels).sum()
        network.eval()
        embeddings = test
        if embeddings is None:
            embeddings = _embed_all(embed, data.test_images, data.test_labels, data)
        with torch.no_grad():
            right = (classifier(embeddings).argmax(1) == data.test_labels).sum()
        curve.append(100 * int(right) / len(data.test_labels))
    return 100 * int(correct) / (steps * training.batch_size), curve


@torch.no_grad()
def _embedding(network: nn.Module, images: Tensor) -> Tensor:
    features: Features = network(images)
    return features.embedding


def _embed_all(
    embed: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, data: LoadedData
) -> Tensor:
    """Return the embeddings of all images, [N, D]."""
    batches = eval_batches(images, labels, data, evaluation.BATCH)
    return torch.cat([embed(batch) for batch, _ in batches])
