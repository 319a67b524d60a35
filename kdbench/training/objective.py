"""The training objective: ``gamma * CE + alpha * T^2 * KL + sum of beta * term``."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from kdbench.tensors import kl, upcast


def total(
    s_logits: Tensor,
    labels: Tensor,
    t_logits: Tensor | None,
    terms: Sequence[tuple[float, Tensor]],
    gamma: float,
    alpha: float,
    temperature: float,
) -> Tensor:
    """Return the training loss, a scalar; parts of weight 0 are not evaluated.

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
    parts = [beta * term for beta, term in terms if beta != 0]
    if gamma != 0:
        parts.append(gamma * F.cross_entropy(upcast(s_logits), labels))
    if alpha != 0:
        if t_logits is None:
            raise ValueError(f"alpha is {alpha:g}, but there is no teacher")
        parts.append(alpha * kl(s_logits, t_logits, temperature))
    if not parts:
        return upcast(s_logits).sum() * 0.0
    return sum(parts[1:], parts[0])
