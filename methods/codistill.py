"""Codistillation (Anil et al., ICLR 2018, arXiv:1804.03235), Algorithm 1.

Networks of one architecture, with different initial weights, learn from the labels and, after a
burn-in, from stale copies of each other: network i also gets the cross-entropy of its prediction
with the mean of the other copies' probabilities, constants, at temperature 1. Copies are made at
the end of the burn-in and every ``interval`` steps after it.

The authors published no code. From memory of the paper: probabilities, not logits, are averaged
(the same for two networks); intervals of 50 to 100 steps do no harm; for ImageNet, distillation
begins after about 3000 steps. Ours: the copies use their running statistics; all networks get the
same batch, where the paper's workers read the data in different orders, or different data; the
length of the burn-in, which the paper counts in steps.
"""

import math
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Batch, Features, Group, Incompatible, Inner, Method, Objective, Setup
from kdbench.peer_losses import check_peers, cross_entropies, mean_of_others, peer_logits
from kdbench.schedules import in_epochs
from kdbench.tensors import upcast


class Codistill(Method):
    """Let networks match the predictions of each other's stale copies.

    The term holds the cross-entropies with the labels of all networks but the first, and those with
    the copies' predictions of all networks.

    Args:
        peers: number of networks.
        burn_in: length of the training without copies, in epochs, or as a share of the training if
            at most 1; at least one step.
        interval: steps between copies.
    """

    family = "online"
    needs_teacher = False
    brings_peers = True
    objective = Objective(gamma=1.0, alpha=0.0)

    steps: Tensor

    def __init__(
        self, setup: Setup, *, peers: int = 2, burn_in: float = 0.05, interval: int = 50
    ) -> None:
        super().__init__(setup)
        check_peers("codistill", setup, peers)
        if interval < 1:
            raise Incompatible(f"codistill: interval: {interval}: expected at least 1 step")
        if burn_in < 0:
            raise Incompatible(f"codistill: burn_in: {burn_in:g}: expected at least 0")
        if setup.new_student is None:
            raise Incompatible("codistill needs networks to copy the student to")
        self.burn_in, self.interval = burn_in, interval
        self.steps_per_epoch = len(setup.train_labels) // setup.batch_size
        self.copies = nn.ModuleList(setup.new_student() for _ in range(peers))
        self.copies.eval().requires_grad_(False)
        # A tensor, because a captured step cannot depend on a number that changes in every step.
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @classmethod
    def group(cls, *, peers: int = 2, **hyper: Any) -> Group:
        return Group(peers)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of everything but the copies, which stay in eval mode."""
        super().train(mode)
        self.copies.eval()
        return self

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        logits = peer_logits(s)
        labelled = cross_entropies(logits[1:], batch.labels)
        if batch.epoch <= math.floor(in_epochs(self.burn_in, batch.epochs)):
            return labelled  # without running the copies
        weight = (self.steps >= self.first_copies(batch)).to(logits.dtype)
        return labelled + weight * self.distillation(logits, batch.images)

    def first_copies(self, batch: Batch) -> int:
        """Return the number of steps after which the first copies are made."""
        burn_in = in_epochs(self.burn_in, batch.epochs) * self.steps_per_epoch
        return max(1, math.ceil(burn_in))

    def distillation(self, logits: Tensor, images: Tensor) -> Tensor:
        """Return the sum of the networks' cross-entropies with the other copies' predictions.

        Args:
            logits: of the networks, [P, B, K].
            images: [B, 3, H, W].
        """
        with torch.no_grad():
            own_type = images.to(next(self.copies.parameters()).dtype)
            answers = torch.stack([upcast(copy(own_type).logits) for copy in self.copies])
            targets = mean_of_others(F.softmax(answers, dim=-1).to(logits.dtype))
        return -(targets * F.log_softmax(logits, dim=-1)).sum() / logits.shape[1]

    @torch.no_grad()
    def adapt(self, inner: Inner) -> None:
        """Count the step, and copy the networks if it is time."""
        self.steps += 1
        since = self.steps - self.first_copies(inner.batch)
        due = (since >= 0) & (since % self.interval == 0)
        for copy, network in zip(self.copies, inner.peers, strict=True):
            before = (*copy.parameters(), *copy.buffers())
            now = (*network.parameters(), *network.buffers())
            for x, y in zip(before, now, strict=True):
                x.copy_(torch.where(due, y, x))

    def answers(self, s: Features) -> dict[str, Tensor]:
        logits = peer_logits(s)
        return {"mean": logits, "ensemble": logits.mean(0)}
