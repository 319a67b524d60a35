"""How good a prediction is on labelled images."""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.training.ranks import ALONE, World

BATCH = 500
"""Images at once, where the number decides nothing."""


@torch.no_grad()
def evaluate(
    predict: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    world: World = ALONE,
) -> tuple[float, float, float]:
    """Mean loss, top-1 and top-5 accuracy in percent.

    Args:
        predict: images [B, C, H, W] to logits [B, K].
        batches: images and labels [B]: of this rank, where there are several.
        device: where they are.
        world: the ranks that look at the other batches.
    """

    def own() -> Tensor:
        loss = torch.zeros((), dtype=torch.float64, device=device)
        hits = torch.zeros(2, dtype=torch.int64, device=device)
        n = 0
        for images, labels in batches:
            logits = predict(images)
            loss += F.cross_entropy(logits, labels, reduction="sum")
            top = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
            hits += torch.stack([top[:, 0].sum(), top.any(1).sum()])
            n += len(labels)
        return torch.stack([loss, *hits.double(), loss.new_tensor(n)])  # counts are exact

    loss, first, five, n = world.sum(world.run_or_fail_together(own)).tolist()
    return loss / n, 100 * first / n, 100 * five / n
