from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from random_features import batch, build, features, features_for, gradient_is_right

from kdbench.method import Features, Incompatible
from kdbench.registry import lookup

LATE = replace(batch(), epoch=81, epochs=300)


def made(seed: int = 0, **hyper: Any) -> tuple[Any, Features]:
    s = features_for("okddip", hyper, width=16, seed=seed, dtype=torch.float64)
    return build("okddip", s, s, **hyper), s


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 20), st.booleans())
def test_rows_of_the_attention_sum_to_one(seed: int, ensemble: bool) -> None:
    method, s = made(seed, ensemble=ensemble)
    weights = method.attention(s)
    n = 4 if ensemble else 3
    assert weights.shape == (4, n, n)
    assert torch.allclose(weights.sum(2), torch.ones(4, n, dtype=torch.float64))


def test_leader_learns_from_the_mean_of_the_auxiliary_peers() -> None:
    method, s = made()
    with torch.no_grad():
        method.query.weight.zero_()  # then every peer's target is the mean, too
    logits = torch.stack([peer.logits for peer in s.peers])
    targets = method.targets(s, logits)
    assert targets.shape == logits.shape
    assert torch.allclose(targets, logits[1:].mean(0).expand_as(targets))


def test_leader_does_not_teach() -> None:
    """Its logits enter its own cross-entropy and divergence only."""
    method, s = made()
    z = torch.stack([peer.logits for peer in s.peers])
    moved = z.clone()
    moved[0] += 1.5 * torch.randn_like(z[0])
    assert torch.equal(method.targets(s, z), method.targets(s, moved))


@pytest.mark.parametrize("detach", ["none", "logits"])
def test_detached_logits_teach_the_attention_but_get_no_gradient(detach: str) -> None:
    method, s = made(detach=detach)
    logits = torch.stack([peer.logits for peer in s.peers]).requires_grad_()
    method.targets(s, logits).square().sum().backward()
    assert method.query.weight.grad.any() and method.key.weight.grad.any()
    assert (logits.grad is None) == (detach == "logits")


def test_forms_of_the_group_loss_have_equal_gradients_if_targets_are_constants() -> None:
    grads: list[torch.Tensor] = []
    for group_loss in ("KL", "CE"):
        method, s = made(group_loss=group_loss, detach="logits")
        for parameter in method.parameters():
            parameter.requires_grad_(False)
        leaf = s.peers[2].logits.requires_grad_()
        grads += torch.autograd.grad(method.loss(s, s, LATE), leaf)
    assert torch.allclose(grads[0], grads[1], atol=1e-6)


def test_weight_ramps_up() -> None:
    method, s = made()
    own = sum(F.cross_entropy(peer.logits, LATE.labels) for peer in s.peers[1:])
    first, half, last = (
        (method.loss(s, s, replace(LATE, epoch=epoch)) - own).item() for epoch in (1, 41, 81)
    )
    assert first / last == pytest.approx(2.718281828459045**-5)
    assert half / last == pytest.approx(2.718281828459045**-1.25)
    share, _ = made(rampup=0.25)
    given = replace(batch(), epoch=11, epochs=40)
    assert (share.loss(s, s, given) - own).item() == pytest.approx(last)


@pytest.mark.parametrize("hyper", [{}, {"ensemble": True}, {"group_loss": "CE"}], ids=str)
def test_gradient(hyper: dict[str, Any]) -> None:
    method, s = made(peers=3, rampup=0.0, **hyper)
    assert gradient_is_right(method, s, s)


def test_answers_are_of_the_auxiliary_peers() -> None:
    for ensemble, first in ((False, 1), (True, 0)):
        method, s = made(ensemble=ensemble)
        answers, z = method.answers(s), torch.stack([peer.logits for peer in s.peers[first:]])
        assert torch.equal(answers["mean"], z)
        assert torch.equal(answers["ensemble"], z.mean(0))


def test_trace_gives_attention_and_diversity() -> None:
    method, s = made()
    traced = method.trace(s, s)
    p = [peer.logits.softmax(1) for peer in s.peers[1:]]
    pairs = [(0, 1), (0, 2), (1, 2)]
    expected = sum((p[a] - p[b] + 1e-6).norm(dim=1).mean() for a, b in pairs) / 3
    assert torch.allclose(traced["diversity"], torch.as_tensor(expected))
    assert torch.allclose(traced["weights"].sum(1), torch.ones(3, dtype=torch.float64))
    same = replace(s, peers=(s,) * 4)
    assert method.trace(same, same)["diversity"] < 1e-5


def test_group() -> None:
    cls = lookup.load("okddip")
    for hyper, expected in (({}, (4, -1)), ({"form": "network", "peers": 3}, (3, None))):
        group = cls.group(**hyper)
        assert group and (group.size, group.shared, group.rescale) == (*expected, False)
    with pytest.raises(ValueError, match="form is 'tree', expected 'branch' or 'network'"):
        cls.group(form="tree")


def test_projections_are_at_least_one_wide() -> None:
    s = features_for("okddip", {})  # embeddings of 8
    method: Any = build("okddip", s, s, factor=100)
    assert method.query.weight.shape == (1, 8)
    with pytest.raises(ValueError, match="factor is 0, expected at least 1"):
        build("okddip", s, s, factor=0)


def test_incompatible_setups_are_refused() -> None:
    s = features()
    with pytest.raises(Incompatible, match="OKDDip needs 4 networks that learn together, not 1"):
        build("okddip", s, s)
    pair = features_for("okddip", {"peers": 2, "ensemble": True})
    with pytest.raises(ValueError, match="peers is 2, expected at least 3"):
        build("okddip", pair, pair, peers=2)
    build("okddip", pair, pair, peers=2, ensemble=True)
