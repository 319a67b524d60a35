"""Wasserstein distances: transport between the other classes, Gaussians of maps, decay."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from random_features import batch, build, features, setup
from torch import nn

from kdbench.method import Incompatible
from kdbench.registry import lookup

METHOD: Any = lookup.load("wkd")


def test_transport_by_loops() -> None:
    """One cost matrix of the other classes per sample, as in the paper."""
    s, t = (features(3, seed=i, dtype=torch.float64) for i in (0, 1))
    given = batch(3)
    method = build("wkd", s, t, weight=7.0)
    cost = method.get_buffer("cost")
    expected = 0.0
    for n in range(3):
        y = int(given.labels[n])
        others = [k for k in range(5) if k != y]
        c = cost[others][:, others]
        kernel = torch.exp(-c / 0.05)
        a, b = (F.softmax(f.logits[n][others] / 8.0, 0) for f in (s, t))
        u = torch.full((4,), 0.25, dtype=torch.float64)
        for _ in range(10):
            v = b / (kernel.T @ u + 1e-8)
            u = a / (kernel @ v + 1e-8)
        flow = u[:, None] * kernel * v
        expected += 7 * float((flow * c).sum()) / 3
        p, q = (F.softmax(f.logits[n], 0)[y] for f in (s, t))
        expected -= float(q * p.log()) / 3
    loss = method.loss(s, t, replace(given, epoch=1, epochs=240))
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_equal_predictions_cost_next_to_nothing() -> None:
    s, t = (features(4, seed=i, dtype=torch.float64) for i in (0, 1))
    method = build("wkd", s, t, regularisation=0.01, iterations=100)
    label = F.one_hot(batch().labels, 5).bool()
    same = method.transport(t.logits, t.logits, label)  # type: ignore[operator]
    other = method.transport(s.logits, t.logits, label)  # type: ignore[operator]
    assert same < 1e-2 * other


def test_cost_of_alike_and_of_opposite_classes() -> None:
    head = nn.Linear(2, 3, bias=False).double()
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0]]))
    s, t = features(num_classes=3), features(num_classes=3, seed=1)
    cost = METHOD(setup(s, t, teacher_head=head), sharpen=0.0).get_buffer("cost")
    assert cost[0].tolist() == pytest.approx([0, 0, 2], abs=1e-7)
    sharp = METHOD(setup(s, t, teacher_head=head), sharpen=2.0).get_buffer("cost")
    assert sharp[0, 2].item() == pytest.approx(1 - torch.tensor(-4.0).exp().item(), abs=1e-6)


@pytest.mark.parametrize("grid", [1, 2])
def test_gaussians_by_loops(grid: int) -> None:
    s = features(2, (4, 6, 8), (8, 4, 4), seed=0, dtype=torch.float64)
    t = features(2, (4, 6, 8), (8, 4, 4), seed=1, dtype=torch.float64)
    method = build("wkd", s, t, form="feature", feature_weight=0.5, ratio=3.0, grid=grid)
    ours, theirs = method.conv_reg(s.stages[-1]), t.stages[-1]  # type: ignore[operator]
    size, expected = 4 // grid, 0.0
    for n in range(2):
        for c in range(8):
            for i in range(grid):
                for j in range(grid):
                    cells = slice(i * size, (i + 1) * size), slice(j * size, (j + 1) * size)
                    x, y = ours[n, c][cells], theirs[n, c][cells]
                    deviations = [(z.var() + 1e-5).sqrt() for z in (x, y)]
                    gap = 3 * (x.mean() - y.mean()) ** 2 + (deviations[0] - deviations[1]) ** 2
                    expected += 0.5 * gap.item() / (2 * grid**2)
    loss = method.loss(s, t, replace(batch(2), epoch=1, epochs=240))
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_bins_overlap_where_the_grid_does_not_divide() -> None:
    ranges = METHOD.__init__.__globals__["_ranges"](5, 2)
    assert [(x.start, x.stop) for x in ranges] == [(0, 3), (2, 5)]


def test_both_forms_are_the_sum_and_only_the_label_part_stays_to_the_end() -> None:
    s, t = (features(seed=i, dtype=torch.float64) for i in (0, 1))
    early, end = (replace(batch(), epoch=epoch, epochs=240) for epoch in (150, 240))
    values = {}
    for form in ("logit", "feature", "logit+feature"):
        method = build("wkd", s, t, form=form)
        values[form] = [method.loss(s, t, given).item() for given in (early, end)]
    for i, both in enumerate(values["logit+feature"]):
        assert both == pytest.approx(values["logit"][i] + values["feature"][i])
    assert values["feature"][1] == pytest.approx(0, abs=1e-12)
    confidence = -(F.softmax(t.logits, 1) * F.log_softmax(s.logits, 1))
    rows = torch.arange(4)
    assert values["logit"][1] == pytest.approx(confidence[rows, batch().labels].mean().item())


def test_pairs_and_values_that_are_refused() -> None:
    s, t = features(sizes=(8, 4, 1)), features(sizes=(8, 4, 1), seed=1)
    with pytest.raises(Incompatible, match=r"two positions or more .* student \[8, 1, 1\]"):
        build("wkd", s, t, form="feature")
    wide = features(sizes=(8, 4, 2))
    with pytest.raises(Incompatible, match=r"each of 2x2 bins"):
        build("wkd", wide, wide, form="feature", grid=2)
    with pytest.raises(Incompatible, match="takes its cost from the teacher's classifier"):
        METHOD(setup(s, t, teacher_head=None))
    for name in ("grid", "iterations"):
        with pytest.raises(ValueError, match=f"{name} is 0, expected at least 1"):
            METHOD(setup(features(), features()), **{name: 0})
    with pytest.raises(ValueError, match="form is 'both', expected 'logit'"):
        build("wkd", s, t, form="both")
