"""Loss and accuracy of predictions on labelled images."""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.training.ranks import ALONE, World

BATCH = 500
"""Batch size of evaluations; it does not affect results."""


@torch.no_grad()
def evaluate(
    predict: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    world: World = ALONE,
) -> tuple[float, float, float]:
    """Return mean loss, and top-1 and top-5 accuracy in percent.

    Args:
        predict: maps images [B, C, H, W] to logits [B, K].
        batches: this rank's images and labels [B].
        device: device of the batches.
        world: the ranks that share the evaluation.
    """

    def sums_of_rank() -> Tensor:
        loss = torch.zeros((), dtype=torch.float64, device=device)
        correct = torch.zeros(2, dtype=torch.int64, device=device)
        n = 0
        for images, labels in batches:
            logits = predict(images)
            loss += F.cross_entropy(logits, labels, reduction="sum")
            top = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
            correct += torch.stack([top[:, 0].sum(), top.any(1).sum()])
            n += len(labels)
        return torch.stack([loss, *correct.double(), loss.new_tensor(n)])  # counts are exact

    loss, top1, top5, n = world.sum(world.run_or_fail_together(sums_of_rank)).tolist()
    return loss / n, 100 * top1 / n, 100 * top5 / n
