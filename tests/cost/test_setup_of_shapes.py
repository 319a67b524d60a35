"""What methods are built from while their cost is counted."""

import copy

from torch import nn
from torch._subclasses import FakeTensorMode

from kdbench.cost.setup_of_shapes import Head


def test_copy_of_a_head_of_fake_tensors_is_a_new_head() -> None:
    """torch's own copy would read storages that do not exist, and damage the heap."""
    with FakeTensorMode():
        head = Head(8, 5).requires_grad_(False)
        copied = copy.deepcopy(nn.ModuleList([head]))[0]
    assert isinstance(copied, Head) and copied is not head
    assert (copied.in_features, copied.out_features) == (8, 5)
    assert copied.weight is not head.weight
    assert not copied.weight.requires_grad
