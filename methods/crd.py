"""Contrastive representation distillation (Tian et al., ICLR 2020, arXiv:1910.10699), Eqs. 9-19.

As in the authors' code: noise-contrastive estimation against two memory banks, with normalisers Z
fixed by the first batch. The loss itself draws positives and negatives, on the device.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.method import Batch, Features, Incompatible, Method, Setup
from kdbench.tensors import exact, on_gpu, one_of, unit_rows, upcast

CHUNK = 8192
"""Bank entries scored at a time on a CPU: scores stay in cache."""
GPU_CHUNK = 2**18
"""The same on a GPU: CIFAR's training set at once, and memory stays bounded for larger ones."""


class CRD(Method):
    """Distinguish a sample's own pair of embeddings from pairs with other samples.

    Args:
        k: negatives per sample, of other labels: distinct ones, or drawn with replacement for a
            sample whose label has fewer than ``k`` samples of other labels.
        tau: temperature of the scores.
        momentum: share of the old entry when a bank entry is updated.
        width: width of the embeddings, which are learned for both networks.
        mode: "exact": the positive is the sample itself; "relax": any sample of its class.
    """

    family = "contrastive"
    beta = 0.8
    version = 2
    memory_v1: Tensor  # [N, width], the student's bank
    memory_v2: Tensor  # [N, width], the teacher's bank
    z: Tensor  # [2], normalisers of student and teacher anchors; -1: not yet known
    labels: Tensor  # [N]
    order: Tensor  # [N], samples sorted by label
    counts: Tensor  # [K], samples of each class

    def __init__(
        self,
        setup: Setup,
        *,
        k: int = 16384,
        tau: float = 0.07,
        momentum: float = 0.5,
        width: int = 128,
        mode: str = "exact",
    ) -> None:
        super().__init__(setup)
        if tau < 0.02:
            raise ValueError(f"tau is {tau}, expected 0.02 or more: exp(1/tau) leaves float32")
        counts = torch.bincount(setup.train_labels.cpu(), minlength=setup.num_classes)
        if k < 1:
            raise ValueError(f"k is {k}, expected 1 or more negatives per sample")
        n = len(setup.train_labels)
        others = {n - int(count) for count in counts if count}
        if min(others) < 1:
            raise Incompatible(f"CRD finds no negatives: {n} samples in one class")
        self.k = k
        self.distinct, self.repeated = max(others) >= k, min(others) < k
        self.relax = one_of("mode", mode, "exact", "relax") == "relax"
        self.tau, self.momentum, self.seed = tau, momentum, setup.seed
        self.embed_s = nn.Linear(setup.student.embedding.shape[1], width)
        self.embed_t = nn.Linear(setup.teacher.embedding.shape[1], width)
        bound = (width / 3) ** -0.5
        for name in ("memory_v1", "memory_v2"):
            self.register_buffer(name, torch.empty(n, width).uniform_(-bound, bound))
        self.register_buffer("z", torch.full((2,), -1.0))
        labels = setup.train_labels.to(torch.int32)
        self.register_buffer("labels", labels, persistent=False)
        self.register_buffer("order", labels.argsort(stable=True), persistent=False)
        self.register_buffer("counts", counts, persistent=False)
        self.tries = tries(n, k, counts)
        self.z_known = False
        self.register_load_state_dict_post_hook(reset_z_known)

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        v1 = unit_rows(upcast(self.embed_s(upcast(s.embedding))))
        v2 = unit_rows(upcast(self.embed_t(upcast(t.embedding))))
        with torch.no_grad(), exact(v1):
            samples = self.draw(batch)
            sides = ((v1, self.memory_v2), (v2, self.memory_v1))
            if not self.z_known:
                first = torch.stack([self.mean_score(v, bank, *samples) for v, bank in sides])
                self.z.copy_(torch.where(self.z < 0, first * len(self.labels), self.z))
                self.z_known = True
            (value1, slope1), (value2, slope2) = (
                self.contrast(v, bank, z, *samples)
                for (v, bank), z in zip(sides, self.z, strict=True)
            )
            self.renew(self.memory_v1, v1, batch.index)
            self.renew(self.memory_v2, v2, batch.index)
        # The slopes already are the gradients, so the backward pass needs no copy of the banks.
        flow = ((v1 - v1.detach()) * slope1).sum() + ((v2 - v2.detach()) * slope2).sum()
        return value1 + value2 + flow

    def contrast(
        self, v: Tensor, bank: Tensor, z: Tensor, positive: Tensor, negatives: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the loss of one network's anchors against the other's bank, and its gradient.

        With ``P = exp(v.m / tau) / z`` and ``r = k / n``, a positive costs
        ``log((P + r + eps) / P)`` and a negative ``log((P + r + eps) / r)``.

        Args:
            v: anchors, [B, width].
            bank: [N, width].
            z: normaliser, a scalar.
            positive: [B].
            negatives: number of times that each bank entry is a negative, [B, N].

        Returns:
            Mean over the batch, a scalar, and its gradient with respect to ``v``, [B, width].
        """
        r = self.k / len(bank)
        noise = r + 1e-7
        own = bank[positive]
        odds = noise * z / ((v * own).sum(1) / self.tau).exp()  # [B]
        value = odds.log1p().sum() + len(v) * self.k * math.log1p(1e-7 / r)
        slope = -(odds / (1 + odds))[:, None] * own
        scale = 1 / (noise * z)
        size = chunk(bank)
        for lo in range(0, len(bank), size):
            part = bank[lo : lo + size]
            counts = negatives[:, lo : lo + size].to(v)
            ratio = ((v / self.tau) @ part.T).exp_().mul_(scale)  # [B, size]
            value = value + ratio.log1p().mul_(counts).sum()
            slope = slope.addmm_(ratio.div_(1 + ratio).mul_(counts), part)
        return value / len(v), slope / (self.tau * len(v))

    def mean_score(self, v: Tensor, bank: Tensor, positive: Tensor, negatives: Tensor) -> Tensor:
        """Return the mean of ``exp(v.m / tau)`` over positives and negatives, a scalar."""
        total = ((v * bank[positive]).sum(1) / self.tau).exp().sum()
        size = chunk(bank)
        for lo in range(0, len(bank), size):
            scores = ((v / self.tau) @ bank[lo : lo + size].T).exp_()
            total = total + scores.mul_(negatives[:, lo : lo + size]).sum()
        return total / (len(v) * (self.k + 1))

    def renew(self, bank: Tensor, v: Tensor, index: Tensor) -> None:
        """Move the batch's entries of a bank towards the new embeddings, [B, width]."""
        bank[index] = unit_rows(self.momentum * bank[index] + (1 - self.momentum) * v).to(bank)

    def draw(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Draw positives, [B], and negatives, ``k`` ones in each row of [B, N].

        Stateless: the numbers depend on seed and step only.
        """
        device = self.labels.device
        generator = batch.generator(self.seed, "crd")
        negatives = self.draw_negatives(self.labels[batch.index], generator)
        if not self.relax:
            return batch.index, negatives
        label = self.labels[batch.index].long()
        share = torch.rand(len(label), generator=generator, device=device, dtype=torch.float64)
        start = self.counts.cumsum(0) - self.counts
        return self.order[start[label] + (share * self.counts[label]).long()], negatives

    def draw_negatives(self, label: Tensor, generator: torch.Generator) -> Tensor:
        """Draw ``k`` samples of other labels per label, [B] -> [B, N].

        They are distinct if there are ``k`` of other labels, and else drawn with replacement.

        Returns:
            Number of times that each sample is drawn, [B, N].
        """
        if not self.repeated:
            return self.draw_distinct(label, generator)
        repeated = self.draw_repeated(label, generator)
        if not self.distinct:
            return repeated
        enough = len(self.labels) - self.counts[label.long()] >= self.k
        return torch.where(enough[:, None], self.draw_distinct(label, generator), repeated)

    def draw_repeated(self, label: Tensor, generator: torch.Generator) -> Tensor:
        """Draw ``k`` samples of other labels per label with replacement, [B] -> [B, N]."""
        n, b, device = len(self.labels), len(label), self.labels.device
        share = torch.rand(b, self.k, generator=generator, device=device, dtype=torch.float64)
        own, start = (x[label.long()] for x in (self.counts, self.counts.cumsum(0) - self.counts))
        place = (share * (n - own)[:, None]).long()  # [B, k], among the samples of other labels
        place += own[:, None] * (place >= start[:, None])  # in ``order``, past those of the label
        times = torch.zeros(b, n, dtype=torch.int32, device=device)
        once = torch.ones((), dtype=torch.int32, device=device).expand(place.shape)
        return times.scatter_add_(1, self.order[place], once)

    def draw_distinct(self, label: Tensor, generator: torch.Generator) -> Tensor:
        """Draw a uniformly random set of ``k`` samples of other labels per label, [B] -> [B, N].

        First, each sample is chosen independently with about the right probability, rounded to
        1/256. Then samples in random order are added or removed until there are ``k``. Whatever the
        number after the first step, all sets of ``k`` stay equally likely. If n is large, the rows
        share this random order, each row from a random offset on. Within a row the order is still
        uniform, and shuffling 64 rows of 50,000 would take longer than everything else.
        """
        n, b, device = len(self.labels), len(label), self.labels.device
        other = self.labels != label[:, None]  # [B, N]
        coins = torch.empty(b, -(-n // 8), dtype=torch.int64, device=device)
        coins = coins.random_(-(2**63), None, generator=generator).view(torch.uint8)[:, :n]
        share = 256 * self.k / (n - self.counts[label.long()])
        chosen = (coins <= (share.round().clamp(1, 256) - 1).to(torch.uint8)[:, None]) & other

        surplus = chosen.sum(1, dtype=torch.int32, keepdim=True) - self.k  # [B, 1]
        if n <= 1024:
            candidates = torch.rand(b, n, generator=generator, device=device).argsort(1)
        else:
            permutation = torch.randperm(n, generator=generator, device=device)[: self.tries]
            offset = torch.randint(n, (b, 1), generator=generator, device=device)
            candidates = (permutation + offset) % n  # [B, tries]
        taken = chosen.gather(1, candidates)
        fits = (taken == (surplus > 0)) & other.gather(1, candidates)
        change = fits & (fits.cumsum(1) <= surplus.abs())
        return chosen.scatter_(1, candidates, taken ^ change).view(torch.uint8)


def chunk(bank: Tensor) -> int:
    """Return how many entries of a bank to score at a time, on its device."""
    return GPU_CHUNK if on_gpu(bank) else CHUNK


def tries(n: int, k: int, counts: Tensor) -> int:
    """Return how many samples ``draw_distinct`` must try to reach k, except in 1 case of 1e15."""
    most = 0.0
    for others in {n - int(c) for c in counts.tolist() if c and n - c >= k}:
        share = min(max(round(256 * k / others), 1), 256) / 256
        off = abs(others * share - k) + 8 * (others * share * (1 - share)) ** 0.5 + 16
        dropped = share if others * share + 8 * others**0.5 > k else 1.0
        added = 1 - share if share < 1 else 1.0
        most = max(most, 1.5 * off / (min(dropped, added) * others / n) + 64)
    return min(n, int(most))


def reset_z_known(module: nn.Module, keys: Any) -> None:
    """After loading a state, look up again whether Z is known."""
    module.z_known = False  # type: ignore[assignment]
