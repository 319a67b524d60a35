"""MLKD: what the golden files do not compare."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from golden_files import read_case
from hypothesis import given
from hypothesis import strategies as st
from random_features import batch, build, features
from torch import Tensor

from kdbench.method import Features

GOLDEN = Path(__file__).parents[1] / "golden" / "mlkd"


def pair(batch_size: int = 6, seed: int = 0) -> tuple[Features, Features]:
    s, t = (
        features(batch_size, seed=2 * seed + i, dtype=torch.float64, grad=not i, views=1)
        for i in (0, 1)
    )
    return s, t


def levels(s: Tensor, t: Tensor, temperature: float, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the three levels from loops over samples and classes, with masks on both."""
    p, q = ((x / temperature).softmax(1) for x in (s, t))
    b, k = p.shape
    value = s.new_zeros(())
    for i in range(b):
        value = value + rows[i] * temperature**2 * (q[i] * (q[i].log() - p[i].log())).sum() / b
        for j in range(b):
            value = value + rows[i] * ((q[i] * q[j]).sum() - (p[i] * p[j]).sum()) ** 2 / b
    for i in range(k):
        for j in range(k):
            gap = (q[:, i] * q[:, j]).sum() - (p[:, i] * p[:, j]).sum()
            value = value + columns[i] * gap**2 / k
    return value


@pytest.mark.parametrize("batch_size", [1, 5, 6])
def test_variant_of_the_paper_masks_single_samples_and_classes(batch_size: int) -> None:
    s, t = pair(batch_size)
    sure, popular = t.logits.softmax(1).amax(1), t.logits.softmax(1).sum(0)
    rows, columns = (x <= x.quantile(0.5) for x in (sure, popular))
    every = torch.ones(batch_size), torch.ones(5)
    expected = s.logits.new_zeros(())
    for temperature in (4.0, 3.0, 5.0, 2.0, 6.0):
        weak = levels(s.logits, t.logits, temperature, rows, columns)
        strong = levels(s.views[0].logits, t.views[0].logits, temperature, *every)
        expected = expected + weak + strong
    method = build("mlkd", s, t, variant="paper", weight=1.0, strong_ce=0.0)
    assert method.loss(s, t, batch(batch_size)).item() == pytest.approx(expected.item(), rel=1e-9)


def test_strong_view_has_a_cross_entropy() -> None:
    s, t = pair()
    given_batch = batch(6)
    with_ce, without = (build("mlkd", s, t, strong_ce=x) for x in (0.1, 0.0))
    gap = with_ce.loss(s, t, given_batch) - without.loss(s, t, given_batch)
    expected = 0.1 * F.cross_entropy(s.views[0].logits, given_batch.labels)
    assert gap.item() == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.npz")), ids=lambda path: path.stem)
def test_objective_is_the_authors(path: Path) -> None:
    """The engine adds ``gamma CE`` of the weak view; together it is their whole loss."""
    case = read_case(path)
    method = build("mlkd", case.student, case.teacher)
    assert method.objective.gamma == 0.1 and method.objective.alpha == 0 and method.beta == 1
    weak = method.objective.gamma * F.cross_entropy(case.student.logits, case.batch.labels)
    whole = weak + method.loss(case.student, case.teacher, case.batch)
    expected = case.arrays["loss"] + case.arrays["out/loss_ce"]
    assert whole.item() == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize("variant", ["authors", "paper"])
@given(seed=st.integers(0, 50), shift=st.floats(-5, 5))
def test_loss_depends_on_predictions_only(variant: str, seed: int, shift: float) -> None:
    s, t = pair(seed=seed)
    method = build("mlkd", s, t, variant=variant)
    moved = replace(s, logits=s.logits + shift)
    a, b = (method.loss(x, t, batch(6)).item() for x in (s, moved))
    assert a == pytest.approx(b, rel=1e-9)
    same = method.loss(t, t, batch(6))
    ce = 0.1 * F.cross_entropy(t.views[0].logits, batch(6).labels)
    assert same.item() == pytest.approx(ce.item(), rel=1e-9, abs=1e-12)


def test_unknown_variant_is_refused() -> None:
    s, t = pair()
    with pytest.raises(ValueError, match="variant is 'both', expected 'authors' or 'paper'"):
        build("mlkd", s, t, variant="both")
