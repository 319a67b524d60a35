from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from random_features import batch, build, features
from torch import Tensor

from kdbench.method import Incompatible


def pooled(x: Tensor, size: int) -> Tensor:
    """Average-pool square maps by loops; ``size`` must divide theirs."""
    step = x.shape[2] // size
    result = torch.zeros(*x.shape[:2], size, size, dtype=x.dtype)
    for i in range(size):
        for j in range(size):
            block = x[:, :, i * step : (i + 1) * step, j * step : (j + 1) * step]
            result[:, :, i, j] = block.mean((2, 3))
    return result


def nearest(x: Tensor, size: int) -> Tensor:
    at = [i * x.shape[2] // size for i in range(size)]
    return x[:, :, at][:, :, :, at]


def test_value() -> None:
    """Student maps are half as large as the teacher's; the fusion is written out."""
    s = features(3, (2, 3), (4, 2), seed=0, width=4, dtype=torch.float64)
    t = features(3, (3, 5), (8, 4), seed=1, width=6, dtype=torch.float64)
    method = build("reviewkd", s, t, warmup=0)
    p = dict(method.named_parameters())

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        x = (x - mean[:, None, None]) / (var + 1e-5)[:, None, None].sqrt()
        return x * p[f"{name}.weight"][:, None, None] + p[f"{name}.bias"][:, None, None]

    levels = [
        (s.embedding[:, :, None, None], t.embedding[:, :, None, None]),
        (s.stages[1], t.preacts[1]),
        (s.stages[0], t.preacts[0]),
    ]
    expected, fused = torch.zeros((), dtype=torch.float64), None
    for k, (a, b) in enumerate(levels):
        name = f"abfs.{k}"
        weight = p[f"{name}.conv1.0.weight"][:, :, 0, 0]
        x = norm(torch.einsum("bchw,mc->bmhw", a, weight), f"{name}.conv1.1")
        if fused is not None:
            fused = nearest(fused, x.shape[2])
            both = torch.cat([x, fused], 1)
            att = p[f"{name}.att_conv.0.weight"][:, :, 0, 0]
            share = torch.einsum("bchw,mc->bmhw", both, att)
            share = (share + p[f"{name}.att_conv.0.bias"][:, None, None]).sigmoid()
            x = x * share[:, :1] + fused * share[:, 1:]
        fused = x = nearest(x, b.shape[2])
        out = norm(F.conv2d(x, p[f"{name}.conv2.0.weight"], padding=1), f"{name}.conv2.1")
        total, share_of, weights = ((out - b) ** 2).mean(), 1.0, 1.0
        for size in (4, 2, 1):
            if size < b.shape[2]:
                share_of /= 2
                total = total + share_of * ((pooled(out, size) - pooled(b, size)) ** 2).mean()
                weights += share_of
        expected = expected + total / weights
    loss = method.loss(s, t, batch(3))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize(("epoch", "share"), [(1, 0.05), (20, 1.0), (100, 1.0)])
def test_warm_up(epoch: int, share: float) -> None:
    s, t = (features(seed=i) for i in (0, 1))
    full = build("reviewkd", s, t, warmup=0).loss(s, t, batch()).item()
    loss = build("reviewkd", s, t).loss(s, t, replace(batch(), epoch=epoch)).item()
    assert loss == pytest.approx(share * full, rel=1e-5)


def test_incompatible_setups_are_refused() -> None:
    with pytest.raises(Incompatible, match=r"equal depths: student \[\[4, 8, 8\]"):
        build("reviewkd", features(), features(channels=(4, 6)))
    with pytest.raises(Incompatible, match="more than 1 value per channel"):
        build("reviewkd", features(1), features(1))
