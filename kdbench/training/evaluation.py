"""Loss and accuracy of predictions on labelled images."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.training.ranks import ALONE, World

BATCH = 500
"""Batch size of evaluations; it does not affect results."""


class Evaluation(NamedTuple):
    """Mean loss and accuracies in percent.

    Attributes:
        loss: of the deployed prediction, as are ``top1`` and ``top5``.
        answers: top-1 accuracy of other predictions, by name (``Method.answers``).
    """

    loss: float
    top1: float
    top5: float
    answers: Mapping[str, float]


def evaluate(
    predict: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
) -> Evaluation:
    """Evaluate a network's predictions; ``predict`` maps images [B, C, H, W] to logits [B, K]."""
    return evaluate_all(lambda images: (predict(images), {}), {}, batches, device)


@torch.no_grad()
def evaluate_all(
    predict: Callable[[Tensor], tuple[Tensor, Mapping[str, Tensor]]],
    answers: Mapping[str, int],
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    world: World = ALONE,
) -> Evaluation:
    """Evaluate the deployed prediction and other predictions of the same images.

    Args:
        predict: maps images [B, C, H, W] to logits [B, K] and, by name, others [(P,) B, K].
        answers: number P of predictions of each name, whose accuracies are averaged; 1: [B, K].
        batches: this rank's images and labels [B].
        device: device of the batches.
        world: the ranks that share the evaluation.
    """

    def sums_of_rank() -> Tensor:
        loss = torch.zeros((), dtype=torch.float64, device=device)
        correct = torch.zeros(2 + len(answers), dtype=torch.int64, device=device)
        n = 0
        for images, labels in batches:
            logits, others = predict(images)
            loss += F.cross_entropy(logits, labels, reduction="sum")
            top = _top(logits, labels)
            more = [_top(others[name], labels)[..., 0].sum() for name in answers]
            correct += torch.stack([top[:, 0].sum(), top.any(1).sum(), *more])
            n += len(labels)
        return torch.stack([loss, *correct.double(), loss.new_tensor(n)])  # counts are exact

    sums: list[float] = world.sum(world.run_or_fail_together(sums_of_rank)).tolist()
    loss, top1, top5, *more, n = sums
    accuracies = {
        name: 100 * correct / (count * n)
        for (name, count), correct in zip(answers.items(), more, strict=True)
    }
    return Evaluation(loss / n, 100 * top1 / n, 100 * top5 / n, accuracies)


def _top(logits: Tensor, labels: Tensor) -> Tensor:
    """Return whether each of the (up to) five likeliest classes is right, [..., B, 5]."""
    return logits.topk(min(5, logits.shape[-1]), dim=-1).indices == labels[:, None]


def columns(test: Evaluation, val: Evaluation | None) -> dict[str, float]:
    """Return the columns of a learning curve, with other predictions as ``test_acc_ensemble``."""
    row = {"test_loss": test.loss, "test_acc": test.top1, "test_top5": test.top5}
    row |= {f"test_acc_{answer}": acc for answer, acc in test.answers.items()}
    if val is not None:
        row |= {"val_acc": val.top1}
        row |= {f"val_acc_{answer}": acc for answer, acc in val.answers.items()}
    return row
