"""The training objective: ``gamma * CE + alpha * T^2 * KL + sum of beta * term``."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from kdbench.tensors import kl, upcast


@dataclass(frozen=True)
class Loss:
    """The loss of a training step, and its parts for an optimiser that treats them differently.

    Attributes:
        total: the sum of all parts, a scalar.
        task: ``gamma * CE``, a scalar; None if it is not part of the loss.
        others: the other parts, each a scalar.
    """

    total: Tensor
    task: Tensor | None
    others: tuple[Tensor, ...]

    @property
    def rest(self) -> Tensor | None:
        """The sum of the other parts; None if there are none."""
        return sum(self.others[1:], self.others[0]) if self.others else None


def loss(
    s_logits: Tensor,
    labels: Tensor,
    t_logits: Tensor | None,
    terms: Sequence[tuple[float, Tensor]],
    gamma: float,
    alpha: float,
    temperature: float,
) -> Loss:
    """Return the training loss; parts of weight 0 are not evaluated.

    Args:
        s_logits: the student's logits, [B, K].
        labels: [B].
        t_logits: the teacher's logits, [B, K]; None only if ``alpha`` is 0.
        terms: (beta, term) of each method.
        gamma: weight of the cross-entropy.
        alpha: weight of the divergence from the teacher.
        temperature: T.

    Raises:
        ValueError: ``alpha`` is not 0, but there is no teacher.
    """
    others = [beta * term for beta, term in terms if beta != 0]
    parts, task = others.copy(), None
    if gamma != 0:
        task = gamma * F.cross_entropy(upcast(s_logits), labels)
        parts.append(task)
    if alpha != 0:
        if t_logits is None:
            raise ValueError(f"alpha is {alpha:g}, but there is no teacher")
        others.append(alpha * kl(s_logits, t_logits, temperature))
        parts.append(others[-1])
    if not parts:
        return Loss(upcast(s_logits).sum() * 0.0, None, ())
    return Loss(sum(parts[1:], parts[0]), task, tuple(others))


def total(
    s_logits: Tensor,
    labels: Tensor,
    t_logits: Tensor | None,
    terms: Sequence[tuple[float, Tensor]],
    gamma: float,
    alpha: float,
    temperature: float,
) -> Tensor:
    """Return the sum of all parts of ``loss``, a scalar."""
    return loss(s_logits, labels, t_logits, terms, gamma, alpha, temperature).total
