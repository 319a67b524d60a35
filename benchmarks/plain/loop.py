"""A typical research training loop: one run at a time."""

import copy
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import transforms

from kdbench.data.dataset import LoadedData

from .losses import LOSSES

K = 16384
"""CRD's negatives."""


class Pictures(TorchDataset[tuple[Tensor, int, int, Any]]):
    """PIL images in memory, transformed on access, optionally with CRD's negatives.

    Args:
        data: the data set.
        pad: pixels to pad on each side before a random crop.
        flip: flip half of the images.
        test: use the unchanged test images instead of the training images.
        negatives: number of samples of other classes to draw for each image.
    """

    def __init__(
        self,
        data: LoadedData,
        *,
        pad: int = 4,
        flip: bool = True,
        test: bool = False,
        negatives: int = 0,
    ) -> None:
        images = data.test_images if test else data.train_images
        labels = data.test_labels if test else data.train_labels
        self.images = [Image.fromarray(x.squeeze(-1).numpy()) for x in images]
        self.labels = labels.tolist()
        steps: list[Any] = []
        if pad and not test:
            steps.append(transforms.RandomCrop(data.size, padding=pad))
        if flip and not test:
            steps.append(transforms.RandomHorizontalFlip())
        steps += [transforms.ToTensor(), transforms.Normalize(data.mean, data.std)]
        self.transform = transforms.Compose(steps)
        every = np.asarray(self.labels)
        self.k, self.stream = negatives, np.random.default_rng()
        self.others = (
            [np.flatnonzero(every != c) for c in range(data.num_classes)] if negatives else []
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, int, int, Any]:
        label = self.labels[i]
        drawn: Any = 0
        if self.k:
            pool = self.others[label]
            drawn = np.hstack([[i], self.stream.choice(pool, self.k, replace=self.k > len(pool))])
        return self.transform(self.images[i]), label, i, drawn


class Run:
    """A student in training.

    Args:
        method: one of ``LOSSES``, or "student": cross-entropy alone.
        student: network as built.
        teacher: network as built, trained or not.
        data: the data set.
        batch: number of images in a batch.
        rate: learning rate.
        weight: weight of the method's term; None: its default.
        nesterov: use Nesterov momentum.
        pad: see ``Pictures``.
        flip: see ``Pictures``.
        workers: number of the loader's processes.
        device: device to train on; for a GPU, batches are loaded into pinned memory.
        pictures: the training images, instead of those of ``data``.

    Attributes:
        waited: seconds that ``step`` has waited for the loader.
    """

    def __init__(
        self,
        method: str,
        student: nn.Module,
        teacher: nn.Module | None,
        data: LoadedData,
        *,
        batch: int = 64,
        rate: float = 0.05,
        weight: float | None = None,
        nesterov: bool = False,
        pad: int = 4,
        flip: bool = True,
        workers: int = 0,
        device: torch.device | str = "cpu",
        pictures: Pictures | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.student, self.teacher = student, teacher
        if pictures is None:
            pictures = Pictures(data, pad=pad, flip=flip, negatives=K if method == "crd" else 0)
        self.loader = DataLoader(
            pictures,
            batch,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            pin_memory=self.device.type == "cuda",
        )
        self.test = DataLoader(Pictures(data, test=True), batch)
        self.term: nn.Module | None = None
        if teacher is not None:
            teacher.eval()
            with torch.no_grad():
                images = torch.zeros(2, data.channels, data.size, data.size)
                networks = [copy.deepcopy(x).cpu().eval() for x in (student, teacher)]
                seen = networks[0](images), networks[1](images)
            made = LOSSES[method]
            sized: dict[str, Any] = {"batch": batch} if method == "semckd" else {}
            self.term = made(*seen, len(pictures), **sized)
            self.beta = made.beta if weight is None else weight
            teacher.to(self.device)
            self.term.to(self.device)
        student.to(self.device)
        learned = [*student.parameters(), *(self.term.parameters() if self.term else ())]
        self.optimizer = torch.optim.SGD(
            [p for p in learned if p.requires_grad],
            lr=rate,
            momentum=0.9,
            weight_decay=5e-4,
            nesterov=nesterov,
        )
        self.batches: Iterator[Any] = iter(())
        self.loss = self.acc = self.waited = 0.0

    def step(self) -> None:
        """Train on the next batch, from a new epoch if the last one has ended."""
        began = time.perf_counter()
        batch = next(self.batches, None)
        if batch is None:
            self.batches = iter(self.loader)
            batch = next(self.batches)
        self.waited += time.perf_counter() - began
        self.learn(*batch)

    def epoch(self, rate: Callable[[int, int], float]) -> None:
        """Train on every batch once, with learning rate ``rate(step, steps)``."""
        self.student.train()
        for i, batch in enumerate(self.loader):
            for group in self.optimizer.param_groups:
                group["lr"] = rate(i, len(self.loader))
            self.learn(*batch)

    def learn(self, images: Tensor, labels: Tensor, index: Tensor, drawn: Tensor) -> None:
        """Do one step of the optimiser."""
        images, labels, index, drawn = (
            x.to(self.device, non_blocking=True) for x in (images, labels, index, drawn)
        )
        s = self.student(images)
        loss = F.cross_entropy(s.logits, labels)
        if self.teacher is not None and self.term is not None:
            with torch.no_grad():
                t = self.teacher(images)
            log_s, soft_t = F.log_softmax(s.logits / 4, 1), F.softmax(t.logits / 4, 1)
            loss = loss + F.kl_div(log_s, soft_t, reduction="batchmean") * 16
            loss = loss + self.beta * self.term(s, t, index, drawn)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.loss = loss.item()
        self.acc = 100 * (s.logits.argmax(1) == labels).float().mean().item()

    def accuracy(self) -> float:
        """Return the top-1 accuracy on the test images, in percent."""
        self.student.eval()
        correct = total = 0
        with torch.no_grad():
            for images, labels, *_ in self.test:
                images, labels = images.to(self.device), labels.to(self.device)
                correct += (self.student(images).logits.argmax(1) == labels).sum().item()
                total += len(labels)
        return 100 * correct / total
