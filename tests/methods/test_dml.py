from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from random_features import batch, build, features, features_for, gradient_is_right
from torch import Tensor

from kdbench.method import Features, Incompatible, Method
from kdbench.registry import lookup


def made(seed: int = 0, **hyper: Any) -> tuple[Method, Features]:
    s = features_for("dml", hyper, seed=seed, dtype=torch.float64)
    return build("dml", s, s, **hyper), s


def mutual(method: Method, s: Features) -> Tensor:
    """Return the term without cross-entropies."""
    labels = batch().labels
    return method.loss(s, s, batch()) - sum(F.cross_entropy(p.logits, labels) for p in s.peers[1:])


def test_authors_loss_is_a_sum_over_networks_and_partners() -> None:
    method, s = made(peers=3, partners="sum")
    p = [peer.logits.softmax(1) for peer in s.peers]
    expected = sum(
        (b * (1e-8 + b / (a + 1e-8)).log()).sum(1).mean()
        for i, a in enumerate(p)
        for j, b in enumerate(p)
        if i != j
    )
    assert isinstance(expected, Tensor)
    assert mutual(method, s).item() == pytest.approx(expected.item(), rel=1e-12)
    mean, _ = made(peers=3)
    assert mutual(mean, s).item() == pytest.approx(expected.item() / 2, rel=1e-12)


def test_pairwise_divergences_are_a_mean_over_partners() -> None:
    method, s = made(variant="okddip_pairwise", peers=3, tau=2.0)
    expected = 0.0
    for i in range(3):
        for j in range(3):
            if i != j:
                q = (s.peers[j].logits / 2).softmax(1) + 1e-7
                gap = q.log() - (s.peers[i].logits / 2).log_softmax(1)
                expected += (4 * (q * gap).sum(1).mean() / 2).item()
    assert mutual(method, s).item() == pytest.approx(expected, rel=1e-12)


def test_forms_of_okddips_code_agree_for_two_networks() -> None:
    (mean, s), (pairwise, _) = (
        made(variant=f"okddip_{form}", peers=2) for form in ("mean", "pairwise")
    )
    assert mean.loss(s, s, batch()).item() == pytest.approx(
        pairwise.loss(s, s, batch()).item(), rel=1e-12
    )


@pytest.mark.parametrize("variant", ["authors", "okddip_mean", "okddip_pairwise"])
def test_equal_networks_have_no_divergence(variant: str) -> None:
    method, _ = made(variant=variant, peers=3)
    same = features(dtype=torch.float64)
    s = Features(same.stem, same.stages, same.preacts, same.embedding, same.logits, (same,) * 3)
    assert abs(mutual(method, s).item()) < 1e-4


@settings(max_examples=20, deadline=None)
@given(
    st.permutations(range(4)),
    st.sampled_from(["authors", "okddip_mean", "okddip_pairwise"]),
    st.integers(0, 5),
)
def test_networks_are_exchangeable(order: list[int], variant: str, seed: int) -> None:
    method, s = made(seed, variant=variant, peers=4)

    def whole(peers: tuple[Features, ...]) -> float:
        first = peers[0]
        moved = Features(
            first.stem, first.stages, first.preacts, first.embedding, first.logits, peers
        )
        own = F.cross_entropy(first.logits, batch().labels)
        return (own + method.loss(moved, moved, batch())).item()

    assert whole(tuple(s.peers[i] for i in order)) == pytest.approx(whole(s.peers), rel=1e-9)


@pytest.mark.parametrize("variant", ["okddip_mean", "okddip_pairwise"])
def test_gradient(variant: str) -> None:
    method, s = made(variant=variant, peers=3)
    assert gradient_is_right(method, s, s)


def test_answers() -> None:
    method, s = made()
    answers = method.answers(s)
    assert torch.equal(answers["mean"], torch.stack([p.logits for p in s.peers]))
    assert torch.allclose(answers["ensemble"], (s.logits + s.peers[1].logits) / 2)


def test_number_of_networks() -> None:
    cls = lookup.load("dml")
    sizes = [
        group.size
        for hyper in ({}, {"variant": "okddip_mean"}, {"variant": "okddip_mean", "peers": 3})
        if (group := cls.group(**hyper)) and group.shared is None
    ]
    assert sizes == [2, 4, 3]


def test_incompatible_setups_are_refused() -> None:
    s = features()
    with pytest.raises(Incompatible, match="needs 2 networks that learn together, not 1"):
        build("dml", s, s)
    pair = features_for("dml", {})
    with pytest.raises(ValueError, match="expected 'authors' or 'okddip_mean' or"):
        build("dml", pair, pair, variant="paper")
    with pytest.raises(ValueError, match="partners is 'all', expected 'mean' or 'sum'"):
        build("dml", pair, pair, partners="all")
