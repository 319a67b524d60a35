"""The plain loop's losses equal the methods' losses, as the benchmark assumes."""

from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.plain.losses import LOSSES
from kdbench.method import Batch, Features, Setup
from kdbench.models import zoo
from kdbench.registry import lookup

HYPER: dict[str, dict[str, Any]] = {"hkd": {"variant": "semckd_repo"}, "crd": {"k": 9}}
"""Options that are fixed in the plain loss, or depend on its batches."""
PARTS = {"ft": ("encoder", "translator")}
"""Submodules of a method that the plain loss has, too; by default all."""

B, N, K = 8, 40, 4


def features(name: str, images: Tensor) -> Features:
    """Return the features of an untrained network in training mode, float64."""
    torch.manual_seed(len(name))
    network = zoo.create(name, num_classes=K, in_channels=3).double()
    result: Features = network(images)
    return result


@pytest.mark.parametrize("method", sorted(set(LOSSES) - {"kd", "ab", "fsp"}))
def test_plain_loss_equals_the_method(method: str) -> None:
    """Compare the value, and the gradient at the student's stem, for equal parameters."""
    torch.manual_seed(0)
    images = torch.randn(B, 3, 16, 16, dtype=torch.float64)
    s, t = features("r8w4", images), features("r8w8", images)
    t = Features(
        t.stem.detach(),
        tuple(x.detach() for x in t.stages),
        tuple(x.detach() for x in t.preacts),
        t.embedding.detach(),
        t.logits.detach(),
    )
    labels = torch.arange(N) % K
    ours = lookup.load(method)(
        Setup(s, t, labels, B, K, torch.nn.Linear(t.embedding.shape[1], K)),
        **HYPER.get(method, {}),
    ).double()
    extra = {"batch": B} if method == "semckd" else {}
    plain = LOSSES[method](s, t, N, **extra).double()
    mine = [p for part in PARTS.get(method, ("",)) for p in ours.get_submodule(part).parameters()]
    with torch.no_grad():
        for p, q in zip(*(sorted(x, key=vectors) for x in (plain.parameters(), mine)), strict=True):
            p.copy_(q)
    for name, bank in plain.named_buffers():
        if name.startswith("memory"):
            bank.copy_(ours.get_buffer(f"memory_v{name[-1]}"))
    index = torch.arange(B)
    batch = Batch(images, labels[index], index)
    drawn = index[:, None]
    if method == "crd":
        _, negatives = ours.draw(batch)  # type: ignore[operator]
        drawn = torch.cat([drawn, negatives.nonzero()[:, 1].view(B, -1)], 1)
    a = ours.train().loss(s, t, batch)
    b = plain.train()(s, t, index, drawn)
    torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-12)
    expected, actual = (torch.autograd.grad(x, s.stem, retain_graph=True)[0] for x in (a, b))
    torch.testing.assert_close(
        actual, expected, rtol=1e-7, atol=1e-12 * float(expected.abs().max() + 1)
    )


def vectors(p: torch.Tensor) -> bool:
    """Return a sort key: both sides may register vectors and weights in different orders."""
    return p.dim() == 1
