"""Tests of the tensors of a step."""

from dataclasses import replace

import torch
from random_features import features

from kdbench.features import Features


def group() -> Features:
    first, second = features(seed=0), features(seed=1)
    shared = replace(second, stem=first.stem)
    return replace(first, peers=(first, shared), views=(features(seed=2),))


def test_tensors_of_peers_and_views_are_named() -> None:
    names = [name for name, _ in group().named()]
    assert {"logits", "peers[1].logits", "peers[1].stages[0]", "views[0].embedding"} <= set(names)
    assert len(names) == len(set(names))


def test_map_reaches_peers_and_views_and_keeps_what_is_the_same_tensor() -> None:
    s = group().map(lambda x: x + 1)
    assert s.peers[0].logits is s.logits
    assert s.peers[1].stem is s.stem
    assert torch.equal(s.views[0].logits, group().views[0].logits + 1)


def test_detached_peers_pass_no_gradient() -> None:
    s = group().map(lambda x: x.requires_grad_())
    assert not any(x.requires_grad for _, x in s.detached().named())


def test_a_map_that_is_not_returned_stays_away() -> None:
    without = replace(features(), last=None)
    assert "last" not in [name for name, _ in without.named()]
    assert without.map(lambda x: x + 1).last is None
