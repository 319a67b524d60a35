from typing import Any

import pytest
import torch
import torch.nn.functional as F
from random_features import batch, build, features, features_for, gradient_is_right

from kdbench.method import Features, Incompatible
from kdbench.registry import lookup


def made(**hyper: Any) -> tuple[Any, Features]:
    s = features_for("one", hyper, dtype=torch.float64)
    return build("one", s, s, **hyper), s


def test_ensemble_is_a_weighted_mean_of_the_branches() -> None:
    method, s = made()
    branches = torch.stack([peer.logits for peer in s.peers])
    ensemble = method.answers(s)["ensemble"]
    assert (ensemble >= branches.amin(0)).all() and (ensemble <= branches.amax(0)).all()
    with torch.no_grad():
        method.norm.weight.zero_()
    assert torch.allclose(method.answers(s)["ensemble"], branches.mean(0))


def test_gate_reads_the_output_of_the_shared_stages() -> None:
    method, s = made()
    s = s.map(lambda x: x.requires_grad_())
    method.loss(s, s, batch()).backward()
    reached = [name for name, x in s.named() if x.grad is not None and x.grad.any()]
    assert {name for name in reached if "stage" in name and "peers" not in name} == {"stages[1]"}


def test_gate_learns_from_the_ensembles_labels_alone() -> None:
    """In the authors' variant the ensemble is a constant in the divergence."""
    method, s = made()
    weight = method.gate.weight
    (found,) = torch.autograd.grad(method.loss(s, s, batch()), weight)
    loss = F.cross_entropy(method.answers(s)["ensemble"], batch().labels)
    (expected,) = torch.autograd.grad(loss, weight)
    assert torch.allclose(found, expected, rtol=1e-9)
    method, s = made(variant="okddip_repo", peers=3, rampup=0.0)
    (found,) = torch.autograd.grad(method.loss(s, s, batch()), method.gate.weight)
    assert not torch.allclose(found, expected, rtol=1e-3)


def test_gradient_of_okddips_variant() -> None:
    method, s = made(variant="okddip_repo", peers=3, rampup=0.0)
    assert gradient_is_right(method, s, s)


def test_number_of_branches() -> None:
    cls = lookup.load("one")
    groups = [cls.group(**h) for h in ({}, {"variant": "okddip_repo"}, {"peers": 5})]
    assert [(group.size, group.shared, group.rescale) for group in groups if group] == [
        (3, -1, False), (4, -1, False), (5, -1, False),
    ]  # fmt: skip


def test_gate_of_a_network_of_one_stage_reads_the_stem() -> None:
    s = features_for("one", {}, 4, (6,), (4,))
    method: Any = build("one", s, s)
    assert method.gate.in_features == s.stem.shape[1]


def test_incompatible_setups_are_refused() -> None:
    s = features()
    with pytest.raises(Incompatible, match="ONE needs 3 networks that learn together, not 1"):
        build("one", s, s)
    single = features_for("one", {}, 1)
    with pytest.raises(Incompatible, match="a batch of 2 or more"):
        build("one", single, single)
    group = features_for("one", {})
    with pytest.raises(ValueError, match="variant is 'paper', expected 'authors' or 'okddip_repo'"):
        build("one", group, group, variant="paper")
