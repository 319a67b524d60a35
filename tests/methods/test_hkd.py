import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_features import batch, build, features, gradient_is_right, permuted
from torch import Tensor

EPS = 1e-6


def rows(kernel: list[list[float]]) -> list[list[float]]:
    return [[x / sum(row) for x in row] for row in kernel]


def cosine(x: list[list[float]]) -> list[list[float]]:
    unit = [[v / (math.sqrt(sum(u * u for u in row)) + EPS) for v in row] for row in x]
    return [[(sum(p * q for p, q in zip(a, b, strict=True)) + 1) / 2 for b in unit] for a in unit]


def student_t(x: list[list[float]]) -> list[list[float]]:
    square = [[sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) for b in x] for a in x]
    return [[1 / (1 + math.sqrt(d + EPS)) for d in row] for row in square]


def divergence(s: Tensor, t: Tensor) -> float:
    a, b = (x.flatten(1).tolist() for x in (s, t))
    total = 0.0
    for kernel in (cosine, student_t):
        p, q = rows(kernel(a)), rows(kernel(b))
        for i in range(len(a)):
            for j in range(len(a)):
                total += (q[i][j] - p[i][j]) * math.log(q[i][j] / p[i][j]) / len(a) ** 2
    return total


@pytest.mark.parametrize("epoch", [1, 3])
def test_value(epoch: int) -> None:
    s, t = (features(3, seed=i, dtype=torch.float64) for i in (0, 1))
    stages = [divergence(a, b) for a, b in zip(s.stages, t.stages, strict=True)]
    given_batch = replace(batch(3), epoch=epoch)
    authors = divergence(s.embedding, t.embedding) + 100 * 0.7 ** (epoch - 1) * sum(stages)
    assert build("hkd", s, t).loss(s, t, given_batch).item() == pytest.approx(authors, rel=1e-9)
    fixed = build("hkd", s, t, variant="semckd_repo").loss(s, t, given_batch).item()
    assert fixed == pytest.approx(100 * stages[0] + stages[1] + stages[2], rel=1e-9)


def test_gradient() -> None:
    s, t = (features(3, (2, 2), (2, 2), seed=i, dtype=torch.float64) for i in (0, 1))
    s = s.map(lambda x: x + 0.1)
    assert gradient_is_right(build("hkd", s, t), s, t)


def test_zero_if_student_equals_teacher() -> None:
    s = features()
    assert build("hkd", s, s).loss(s, s, batch()).item() == 0


@pytest.mark.parametrize("repeated", [False, True])
def test_large_maps_are_precise_in_float32(repeated: bool) -> None:
    """The references are off by a factor if the diagonal is left to rounding."""
    losses = []
    for dtype in (torch.float32, torch.float64):
        s, t = (features(8, (64,), (16,), seed=i) for i in (0, 1))
        if repeated:
            s = s.map(lambda x: torch.cat((x[:1], x[:-1])))
        s, t = (f.map(lambda x: x.to(dtype)) for f in (s, t))  # noqa: B023
        losses.append(build("hkd", s, t).loss(s, t, batch(8)).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_antipodal_samples_give_finite_loss_and_gradient() -> None:
    s, t = features(2, seed=0), features(2, seed=1)
    s = s.map(lambda x: torch.stack((x[0], -x[0])).requires_grad_())
    loss = build("hkd", s, t).loss(s, t, batch(2))
    loss.backward()
    assert loss.isfinite()
    assert s.embedding.grad is not None
    assert s.embedding.grad.isfinite().all()


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(4)))
def test_order_does_not_matter(order: list[int]) -> None:
    s, t = (features(seed=i, dtype=torch.float64) for i in (0, 1))
    method = build("hkd", s, t)
    loss = method.loss(s, t, batch()).item()
    assert method.loss(permuted(s, order), permuted(t, order), batch()).item() == pytest.approx(
        loss
    )
