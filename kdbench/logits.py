"""Functions of logits that several methods share; all of them return float32 or wider."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.tensors import upcast


def divergences(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float | Tensor
) -> Tensor:
    """Return each sample's scaled KL divergence, ``T^2 sum_k p_t (log p_t - log p_s)``, [B].

    The mean is ``kdbench.tensors.kl``. Gradients reach both logits and the temperature.

    Args:
        student_logits: [B, K].
        teacher_logits: [B, K].
        temperature: T, a number or a scalar tensor.
    """
    log_s = F.log_softmax(upcast(student_logits) / temperature, dim=1)
    log_t = F.log_softmax(upcast(teacher_logits) / temperature, dim=1)
    return (log_t.exp() * (log_t - log_s)).sum(1) * temperature**2


def entropy(logits: Tensor, temperature: float) -> Tensor:
    """Return the entropy of each sample's softened prediction, [B, K] -> [B], from 0 to log K.

    As a weight of a sample's loss it makes uncertain predictions of the teacher count more.

    Source: Su, Tseng, Chen, Lee, Knowledge Distillation with Entropy-Based Reweighting
    (arXiv:2311.13621).
    """
    log_p = F.log_softmax(upcast(logits) / temperature, dim=1)
    return -(log_p.exp() * log_p).sum(1)


def is_label(logits: Tensor, labels: Tensor) -> Tensor:
    """Return a mask, [B, K], that is True at the labels, [B]."""
    return torch.zeros_like(logits, dtype=torch.bool).scatter_(1, labels[:, None], True)


def log_softmax_of_rest(logits: Tensor, label: Tensor) -> Tensor:
    """Return the log-softmax over the classes without the label, [B, K], which is 0 at the label.

    Args:
        logits: [B, K], at least two classes.
        label: True at the label, [B, K].
    """
    rest = logits.masked_fill(label, -torch.inf)
    return F.log_softmax(rest, dim=1).masked_fill(label, 0.0)


def decoupled(a: Tensor, b: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return DKD's divergences of label against rest and within the rest, each [B].

    Args:
        a: the student's logits, divided by the temperature, [B, K].
        b: the teacher's.
        labels: [B].

    Source: Zhao et al., Decoupled Knowledge Distillation, CVPR 2022 (arXiv:2203.08679), Eqs. 2-7.
    """
    label = is_label(a, labels)
    (in_s, out_s, rest_s), (in_t, out_t, rest_t) = (_split(x, labels, label) for x in (a, b))
    target = in_t.exp() * (in_t - in_s) + out_t.exp() * (out_t - out_s)
    rest = (rest_t.exp() * (rest_t - rest_s)).masked_fill(label, 0.0).sum(1)
    return target, rest


def _split(logits: Tensor, labels: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return log-probabilities of the label, [B], of the rest, [B], and within the rest, [B, K].

    ``label`` is True at the labels; the third result is zero there.
    """
    total = logits.logsumexp(1)
    rest = logits.masked_fill(label, -torch.inf).logsumexp(1)
    chosen = logits.gather(1, labels[:, None]).squeeze(1)
    return chosen - total, rest - total, (logits - rest[:, None]).masked_fill(label, 0.0)
