from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from random_features import batch, build, features, features_for, gradient_is_right

from kdbench.method import Features, Incompatible, Method
from kdbench.registry import lookup


def made(**hyper: Any) -> tuple[Method, Features]:
    s = features_for("cl_ilr", hyper, dtype=torch.float64)
    return build("cl_ilr", s, s, **hyper), s


def test_paper_mixes_labels_and_the_other_heads() -> None:
    method, s = made(variant="paper", peers=3, mix=0.3, tau=4.0)
    labels, logits = batch().labels, [peer.logits for peer in s.peers]
    expected = 0.0
    for h, z in enumerate(logits):
        others = sum(x for j, x in enumerate(logits) if j != h) / 2
        assert isinstance(others, torch.Tensor)
        soft = -16 * ((others / 4).softmax(1) * (z / 4).log_softmax(1)).sum(1).mean()
        expected += (0.3 * F.cross_entropy(z, labels) + 0.7 * soft).item()
    whole = F.cross_entropy(s.logits, labels) + method.loss(s, s, batch())
    assert whole.item() == pytest.approx(expected, rel=1e-12)


def test_target_of_the_paper_is_a_constant() -> None:
    """The gradient of each head is that of the losses of this head alone."""
    method, s = made(variant="paper", peers=2)
    s = s.map(lambda x: x.requires_grad_())
    second = s.peers[1].logits
    (found,) = torch.autograd.grad(method.loss(s, s, batch()), second)
    own = 0.5 * F.cross_entropy(second, batch().labels)
    soft = (s.logits.detach() / 2).softmax(1)
    own = own - 0.5 * 4 * (soft * (second / 2).log_softmax(1)).sum(1).mean()
    (expected,) = torch.autograd.grad(own, second)
    assert torch.allclose(found, expected, rtol=1e-12)


def test_weight_ramps_up_in_okddips_code_only() -> None:
    first = {}
    for variant in ("okddip_repo", "paper"):
        method, s = made(variant=variant)
        early, late = (
            method.loss(s, s, replace(batch(), epoch=epoch, epochs=300)).item() for epoch in (1, 81)
        )
        first[variant] = early == late
    assert first == {"okddip_repo": False, "paper": True}


def test_temperature_is_the_variants() -> None:
    for variant, tau in (("okddip_repo", 3.0), ("paper", 2.0)):
        (one, s), (other, _) = made(variant=variant), made(variant=variant, tau=tau)
        assert one.loss(s, s, batch()) == other.loss(s, s, batch())
        assert made(variant=variant, tau=5.0)[0].loss(s, s, batch()) != one.loss(s, s, batch())


def test_gradient() -> None:
    method, s = made(peers=3, rampup=0.0)
    assert gradient_is_right(method, s, s)


def test_group_shares_all_but_the_last_stage_and_rescales() -> None:
    group = lookup.load("cl_ilr").group(peers=3)
    assert group and (group.size, group.shared, group.rescale) == (3, -1, True)


def test_incompatible_setups_are_refused() -> None:
    s = features()
    with pytest.raises(Incompatible, match="CL-ILR needs 4 networks that learn together, not 1"):
        build("cl_ilr", s, s)
    group = features_for("cl_ilr", {})
    with pytest.raises(ValueError, match="variant is 'authors', expected 'okddip_repo' or 'paper'"):
        build("cl_ilr", group, group, variant="authors")
