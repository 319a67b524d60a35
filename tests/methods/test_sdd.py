"""Scale decoupled distillation: regions, weights of contradicting regions, bases."""

from dataclasses import replace

import pytest
import torch
from random_features import batch, build, features, setup
from torch import Tensor, nn

from kdbench.method import Features
from kdbench.region_logits import regions
from kdbench.registry import lookup
from kdbench.tensors import kl


def last(f: Features) -> Tensor:
    assert f.last is not None
    return f.last


def test_regions_are_the_means_of_a_pyramid() -> None:
    x = torch.arange(64.0).view(1, 1, 8, 8)
    one, two, four = regions(x, 3)
    assert one.item() == x.mean()
    assert two[0, 0, 0, 1] == x[0, 0, :4, 4:].mean()
    assert four[0, 0, 3, 2] == x[0, 0, 6:, 4:6].mean()
    assert [y.shape[2] for y in regions(x, 2)] == [1, 2]


def test_one_level_is_the_base_itself() -> None:
    """The image's region has the networks' own logits, if the embedding is the map's mean."""
    s, t = (features(seed=i, dtype=torch.float64) for i in (0, 1))
    method = build("sdd", s, t, base="kd", levels=1, tau=3.0)
    a, b = method.region_logits(s, t)  # type: ignore[operator]
    expected = kl(a[:, 0], b[:, 0], 3.0)
    assert torch.allclose(method.loss(s, t, batch()), expected)
    head = nn.Linear(8, 5).double()
    made = setup(s, t, teacher_head=head)
    logits = lookup.load("sdd")(made).double().region_logits(s, t)[1][:, 0]  # type: ignore[operator]
    assert torch.allclose(logits, head(last(t).mean((2, 3))))


@pytest.mark.parametrize("levels", [2, 3])
def test_contradicting_regions_count_twice(levels: int) -> None:
    s, t = (features(6, sizes=(8, 8, 8), seed=i, dtype=torch.float64) for i in (0, 1))
    given = batch(6)
    method = build("sdd", s, t, base="kd", levels=levels)
    a, b = method.region_logits(s, t)  # type: ignore[operator]
    total, contradictions = 0.0, 0
    for n in range(6):
        whole = b[n, 0].argmax() == given.labels[n]
        for r in range(a.shape[1]):
            right = b[n, r].argmax() == given.labels[n]
            contradictions += int(right != whole)
            weight = 2 if right != whole else 1
            total += weight * kl(a[n, r][None], b[n, r][None], 4.0).item()
    assert 0 < contradictions < a.shape[1] * 6
    expected = total / (6 * a.shape[1])
    assert method.loss(s, t, given).item() == pytest.approx(expected, rel=1e-12)


def test_term_grows_to_its_weight_except_with_kd() -> None:
    s, t = (features(seed=i) for i in (0, 1))
    for base, share in (("dkd", 0.5), ("nkd", 0.5), ("kd", 1.0)):
        method = build("sdd", s, t, base=base, warmup=20.0)
        early, late = (
            method.loss(s, t, replace(batch(), epoch=epoch, epochs=240)) for epoch in (10, 20)
        )
        assert early.item() == pytest.approx(share * late.item())


def test_a_share_of_the_training_as_warmup() -> None:
    s, t = (features(seed=i) for i in (0, 1))
    method = build("sdd", s, t, warmup=0.5)
    early, late = (method.loss(s, t, replace(batch(), epoch=n, epochs=8)) for n in (1, 4))
    assert early.item() == pytest.approx(late.item() / 4)


def test_other_values_are_refused() -> None:
    s, t = features(seed=0), features(seed=1)
    with pytest.raises(ValueError, match="base is 'ctkd', expected 'kd' or 'dkd' or 'nkd'"):
        build("sdd", s, t, base="ctkd")
    with pytest.raises(ValueError, match="levels is 4, expected 1, 2 or 3"):
        build("sdd", s, t, levels=4)
