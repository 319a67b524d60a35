"""Transfer: what a student's frozen features are worth on other data, by a linear classifier.

Source: Chen et al., AAAI 2021, and Tian et al., ICLR 2020, train students on CIFAR-100, freeze them
and learn a new classifier on STL-10 or Tiny-ImageNet at 32x32. The recipe is that of the SemCKD
authors' code, but for batch norm: theirs stays in train mode, so its statistics move to the new
data and more than the classifier learns; here it stays as it is, and theirs is ``adapt``. Features
are the student's own embedding, also where a method predicts by itself.
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
from kdbench.runs import records
from kdbench.training import evaluation
from kdbench.training.schedule import learning_rate

TRAINING = Training(batch_size=128, schedule=Schedule(milestones=(150, 180, 210)))
"""240 epochs of SGD at 0.05, divided by 10 after 150, 180 and 210; crops and flips."""

BatchNorm = Literal["frozen", "adapt"]


@dataclass(frozen=True)
class Transfer:
    """Where features are taken to, and how the classifier learns.

    Attributes:
        dataset: with a size, that of the images the networks were trained on.
        training: of the classifier. batch_norm: of the network while the classifier learns.
    """

    dataset: Dataset
    training: Training = TRAINING
    batch_norm: BatchNorm = "frozen"

    @property
    def canonical(self) -> dict[str, Any]:
        """What decides a number, beside the run."""
        return {
            "numerics": NUMERICS,
            "dataset": self.dataset.canonical,
            "training": self.training.canonical,
            "batch_norm": self.batch_norm,
        }

    @property
    def key(self) -> str:
        """Name of the file: the data set's, and 8 digits of what decides the number."""
        text = json.dumps(self.canonical, sort_keys=True)
        return f"{self.dataset.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Transferred:
    """The outcome for one run, ``runs/<id>/transfer/<key>.json``; accuracies in percent.

    Attributes:
        test_acc: of the last epoch: the headline. best_acc: of the best, chosen on the test set.
        weights: sha256 of the network that was frozen. data: of the new images and labels.
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


def run(library: Library, of: Run, to: Transfer) -> Transferred:
    """The transfer of a run, from its file or, where there is none, learned now and written.

    Raises:
        UserError: the images have other channels than the network takes; data missing.
    """
    path = records.folder(library.runs, of.id) / "transfer" / f"{to.key}.json"
    record = records.read(library.runs, of.id)
    assert record is not None and record.result is not None  # found() has seen it
    weights = record.result.weights
    known = _read(path)
    if known is not None and known.weights == weights:
        return known
    source, target = library.data(of.dataset), library.data(to.dataset)
    network = library.network(of)
    if target.channels != source.channels:
        raise AnalysisError(
            f"{to.dataset.title} has {target.channels} channels, run {of.id} was trained on "
            f"{source.channels} ({of.dataset.title})"
        )
    # Images are normalised as the network is used to.
    target = dataclasses.replace(target, mean=source.mean, std=source.std)
    train_acc, curve = learn(network, target, to, of.seed)
    best = max(curve)
    made = Transferred(
        run=of.id,
        transfer=to.canonical,
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
    files.write_atomically(path, json.dumps(asdict(made), indent=1) + "\n")
    return made


def _read(path: Path) -> Transferred | None:
    try:
        return Transferred(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: not a transfer: {error}; delete it to learn it again") from error


def learn(network: Network, data: LoadedData, to: Transfer, seed: int) -> tuple[float, list[float]]:
    """Learn a linear classifier on a network's embeddings; the network stays as it was.

    Args:
        network: frozen, in eval mode.
        data: to learn, normalised for the network.
        to: how.
        seed: of the classifier's initial weights, order and augmentation.

    Returns:
        Train accuracy of the last epoch, and test accuracy after every epoch, in percent.
    """
    training, device = to.training, data.train_labels.device
    adapts = to.batch_norm == "adapt"
    network = copy.deepcopy(network) if adapts else network
    with torch.random.fork_rng():
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
    # What never changes is embedded once.
    still = not (training.crop_pad or training.flip or adapts)
    train = _all(embed, data.train_images, data.train_labels, data) if still else None
    test = None if adapts else _all(embed, data.test_images, data.test_labels, data)
    curve = []
    for epoch in range(1, training.epochs + 1):
        hits = torch.zeros((), dtype=torch.int64, device=device)
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
            hits += (logits.argmax(1) == labels).sum()
        network.eval()
        seen = _all(embed, data.test_images, data.test_labels, data) if test is None else test
        with torch.no_grad():
            right = (classifier(seen).argmax(1) == data.test_labels).sum()
        curve.append(100 * int(right) / len(data.test_labels))
    return 100 * int(hits) / (steps * training.batch_size), curve


@torch.no_grad()
def _embedding(network: nn.Module, images: Tensor) -> Tensor:
    features: Features = network(images)
    return features.embedding


def _all(
    embed: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, data: LoadedData
) -> Tensor:
    """Embeddings of all images, [N, D]."""
    batches = eval_batches(images, labels, data, evaluation.BATCH)
    return torch.cat([embed(part) for part, _ in batches])
