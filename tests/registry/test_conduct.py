"""State in Python is compared by value, however it is nested."""

import copy
import itertools
from collections import deque
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from kdbench.registry.conduct import contents, differing, layout, untrained_layers


class Box:
    def __init__(self, value: Any) -> None:
        self.value = value


def holding(value: Any) -> nn.Module:
    module = nn.Sequential(nn.Linear(2, 2))
    module[0].kept = value
    return module


CHANGES: dict[str, tuple[Any, str]] = {
    "number": (1, "module[0].kept = 2"),
    "type": (1, "module[0].kept = True"),
    "list": ([[1]], "module[0].kept[0].append(2)"),
    "dictionary": ({"a": {"b": 1}}, "module[0].kept['a']['b'] = 2"),
    "set": ({1, 2}, "module[0].kept.add(3)"),
    "object": (Box(Box(1)), "module[0].kept.value.value = 2"),
    "tensor": ([torch.zeros(2)], "module[0].kept[0][1] = 3"),
    "array": (np.zeros(2), "module[0].kept[1] = 3"),
    "generator": (torch.Generator(), "torch.rand(1, generator=module[0].kept)"),
    "numpy's generator": (np.random.default_rng(0), "module[0].kept.random()"),
    "deque": (deque([1]), "module[0].kept.append(2)"),
    "iterator": (itertools.count(), "next(module[0].kept)"),
    "new": (1, "module.other = 1"),
}


@pytest.mark.filterwarnings("ignore:Pickle, copy, and deepcopy support:DeprecationWarning")
@pytest.mark.parametrize("name", CHANGES)
def test_every_change_is_found(name: str) -> None:
    value, change = CHANGES[name]
    module = holding(value)
    before = contents(module)
    assert not differing(before, contents(module))
    if name not in ("generator", "iterator"):
        assert not differing(before, contents(copy.deepcopy(module)))
    exec(change, {"module": module, "torch": torch})
    assert differing(before, contents(module)) == ["other" if name == "new" else "0.kept"]


def test_equal_values_are_equal_and_circles_end() -> None:
    circle: list[Any] = [float("nan"), nn.Linear, len, None]
    circle.append(circle)
    assert not differing(contents(holding(circle)), contents(holding(circle)))


def test_buffers_that_are_not_saved_are_state() -> None:
    module, kept, saved = nn.Module(), torch.zeros(2), torch.zeros(2)
    module.register_buffer("kept", kept, persistent=False)
    module.register_buffer("saved", saved)
    before = contents(module)
    saved.add_(1)
    assert not differing(before, contents(module))
    kept.add_(1)
    assert differing(before, contents(module)) == ["kept"]


def test_lazy_layers_and_a_list_with_the_student_are_allowed() -> None:
    student = nn.Linear(3, 3)
    method = nn.Sequential(nn.LazyLinear(2))
    object.__setattr__(method, "student", [student])
    before = layout(method)
    trained = [*method.parameters(), *student.parameters()]
    method(torch.ones(1, 4))
    assert before["0.weight"] is None
    assert not untrained_layers("M", method, trained)
    assert "M keeps student where" in untrained_layers("M", method, list(method.parameters()))
