"""What a method is built from when only its cost is of interest: right shapes, no real weights."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Features, Setup


def setup_of_shapes(
    s: Features, t: Features | None, train_labels: Tensor, batch_size: int, num_classes: int
) -> Setup:
    """Return a ``Setup`` with heads and batch norms of the right shapes.

    Args:
        s: the student's features.
        t: the teacher's; None without a teacher.
        train_labels: [N].
        batch_size: B.
        num_classes: K.
    """
    student, teacher = ((f or s).map(lambda x: x[:2]) for f in (s, t))
    weight = torch.zeros(num_classes, s.embedding.shape[1], requires_grad=True)
    head, norms = None, []
    if t is not None:
        head = nn.Linear(t.embedding.shape[1], num_classes).requires_grad_(False)
        norms = [nn.BatchNorm2d(x.shape[1]).requires_grad_(False) for x in t.preacts]
    return Setup(
        student=student,
        teacher=teacher,
        train_labels=train_labels,
        batch_size=batch_size,
        num_classes=num_classes,
        teacher_head=head,
        student_head=partial(F.linear, weight=weight, bias=torch.zeros(num_classes)),
        teacher_norms=tuple(norms),
    )
