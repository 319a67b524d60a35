"""What a method is built from when only its cost is of interest: right shapes, no real weights."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

from kdbench.method import Features, Setup
from kdbench.models import upper_part
from kdbench.models.network import Network


class Head(nn.Linear):
    """A classifier that can be copied while tensors are fake.

    Copying a module of fake tensors copies storages that do not exist, and damages the heap.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Linear:
        """Return another classifier of the same shape; a cost does not depend on values."""
        head = Head(self.in_features, self.out_features, bias=self.bias is not None)
        return head.requires_grad_(self.weight.requires_grad)


def setup_of_shapes(
    s: Features,
    t: Features,
    new_student: Callable[[], Network],
    new_teacher: Callable[[], Network] | None,
    train_labels: Tensor,
    batch_size: int,
    num_classes: int,
) -> Setup:
    """Return a ``Setup`` with heads and batch norms of the right shapes.

    Args:
        s: the student's features.
        t: the teacher's; without a teacher the student's.
        new_student: makes a network like the student, if a method runs it.
        new_teacher: likewise; None without a teacher.
        train_labels: [N].
        batch_size: B.
        num_classes: K.
    """
    student, teacher = (f.map(lambda x: x[:2]) for f in (s, t))
    weight = torch.zeros(num_classes, s.embedding.shape[1], requires_grad=True)
    head, norms = None, []
    if new_teacher:
        head = Head(t.embedding.shape[1], num_classes).requires_grad_(False)
        # Real ones: copies of fake batch norms make torch 2.14 crash, too.
        with unset_fake_temporarily():
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
        teacher_from=upper_part.of_frozen(new_teacher) if new_teacher else None,
        student_from=upper_part.of_live(new_student),
        new_student=new_student,
    )
