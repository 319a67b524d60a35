"""Class attention transfer: maps without bias, pooling, and what it refuses."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from random_features import batch, features, setup
from torch import nn

from kdbench.method import Incompatible
from kdbench.models.network_parts import live_head
from kdbench.registry import lookup
from kdbench.registry.toy_networks import Toy

METHOD: Any = lookup.load("catkd")


def test_value_by_loops() -> None:
    """Each class and cell of a 2x2 grid adds a squared difference of pooled maps."""
    s, t = (features(2, seed=i, dtype=torch.float64) for i in (0, 1))
    made = setup(s, t)
    method = METHOD(made).double()
    assert made.student_head is not None
    assert s.last is not None
    assert t.last is not None
    zero = made.student_head(torch.zeros(8, dtype=torch.float64))
    weight = method.classifier.weight
    total, count = 0.0, 0
    for b in range(2):
        for k in range(5):
            for row in range(2):
                for column in range(2):
                    position = (b, slice(None), row, column)  # the last maps are 2x2
                    own = (made.student_head(s.last[position]) - zero)[k]
                    total += ((own - weight[k] @ t.last[position]) ** 2).item()
                    count += 1
    assert method.loss(s, t, batch(2)).item() == pytest.approx(total / count, rel=1e-12)


def test_bias_of_the_student_does_not_matter_and_gets_no_gradient() -> None:
    network = Toy()
    s, t = (features(seed=i) for i in (0, 1))
    method = METHOD(setup(s, t, student_head=live_head(network)))
    before = method.loss(s, t, batch())
    before.backward()
    bias, weight = network.fc.bias.grad, network.fc.weight.grad
    assert weight is not None
    assert weight.abs().max() > 1e-3
    assert bias is not None
    assert bias.abs().max() < 1e-6 * weight.abs().max()
    nn.init.normal_(network.fc.bias, std=10)
    assert torch.allclose(method.loss(s, t, batch()), before, rtol=1e-4)


def test_classifier_is_not_registered() -> None:
    s, t = (features(seed=i) for i in (0, 1))
    names = [name for name, _ in METHOD(setup(s, t)).named_parameters()]
    assert names == ["classifier.weight", "classifier.bias"]  # the teacher's, frozen


def test_normalised_maps_ignore_their_scale() -> None:
    s, t = (features(seed=i, dtype=torch.float64) for i in (0, 1))
    method = METHOD(setup(s, t), normalise=True).double()
    assert s.last is not None
    larger = replace(s, last=3 * s.last)
    assert torch.allclose(method.loss(larger, t, batch()), method.loss(s, t, batch()))
    assert not torch.allclose(
        METHOD(setup(s, t)).double().loss(larger, t, batch()), method.loss(s, t, batch())
    )


def test_binarised_teacher_counts_positions_above_the_mean() -> None:
    s, t = (features(1, num_classes=1, sizes=(4, 4, 4), seed=i) for i in (0, 1))
    head = nn.Linear(8, 1, bias=False)
    nn.init.zeros_(head.weight)
    head.weight.data[0, 0] = 1
    last = torch.zeros(1, 8, 4, 4)
    last[0, 0, 0, :2] = torch.tensor([5.0, 0.1])  # mean of absolute values 5.1 / 16
    last[0, 0, 3, 3] = 1
    method = METHOD(setup(s, replace(t, last=last), teacher_head=head), binarise=True)
    maps = method.teacher_maps(last).flatten()
    assert maps.tolist() == [0.25, 0.0, 0.0, 0.25]


def test_networks_without_classifier_or_map_are_refused() -> None:
    s, t = features(seed=0), features(seed=1)
    with pytest.raises(Incompatible, match="applies both networks' classifiers"):
        METHOD(setup(s, t, teacher_head=None))
    with pytest.raises(ValueError, match="grid is 0, expected at least 1"):
        METHOD(setup(features(), features()), grid=0)
    with pytest.raises(Incompatible, match="pooled to the teacher's 8 values"):
        METHOD(setup(s, replace(t, last=None)))
