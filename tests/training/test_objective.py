import math

import pytest
import torch
import torch.nn.functional as F

from kdbench.tensors import kl
from kdbench.training.objective import total

STUDENT = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]])
TEACHER = torch.tensor([[2.0, -1.0, 0.0], [0.5, 1.0, -4.0]])
LABELS = torch.tensor([0, 2])


def test_total_is_the_weighted_sum() -> None:
    terms = [(2.0, torch.tensor(3.0)), (0.5, torch.tensor(4.0))]
    loss = total(STUDENT, LABELS, TEACHER, terms, gamma=0.1, alpha=0.9, temperature=2.0)
    parts = 0.1 * F.cross_entropy(STUDENT, LABELS) + 0.9 * kl(STUDENT, TEACHER, 2.0) + 6 + 2
    assert loss.item() == pytest.approx(parts.item(), rel=1e-6)


def test_gradient_of_kl_is_right() -> None:
    s = STUDENT.double().requires_grad_()
    t = TEACHER.double()
    kl(s, t, 4.0).backward()
    assert s.grad is not None
    assert torch.allclose(s.grad, 4 / 2 * ((s / 4).softmax(1) - (t / 4).softmax(1)))


def test_part_of_weight_zero_is_not_evaluated() -> None:
    broken = torch.tensor(math.nan)
    loss = total(STUDENT, LABELS, TEACHER * math.nan, [(0.0, broken)], 1.0, 0.0, 4.0)
    assert loss.item() == pytest.approx(F.cross_entropy(STUDENT, LABELS).item())
    assert total(STUDENT, LABELS, TEACHER, [(1.0, torch.tensor(2.0))], 0.0, 0.0, 4.0).item() == 2


def test_objective_without_parts_is_a_differentiable_zero() -> None:
    s = STUDENT.clone().requires_grad_()
    loss = total(s, LABELS, None, [], 0.0, 0.0, 4.0)
    loss.backward()
    assert loss.item() == 0
    assert s.grad is not None
    assert not s.grad.any()


def test_alpha_needs_a_teacher() -> None:
    with pytest.raises(ValueError, match=r"alpha is 0\.9, but there is no teacher"):
        total(STUDENT, LABELS, None, [], 0.1, 0.9, 4.0)


def test_half_precision_is_summed_in_float32() -> None:
    loss = total(STUDENT.bfloat16(), LABELS, TEACHER.bfloat16(), [], 1.0, 1.0, 4.0)
    assert loss.dtype == torch.float32


def test_very_confident_predictions_give_finite_divergences() -> None:
    sure = torch.tensor([[1e4, -1e4, 0.0]])
    assert kl(sure, -sure, 1.0).isfinite()
    assert kl(sure, sure, 1.0).item() == 0
