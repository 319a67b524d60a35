"""Writes into tensors are found by counters, and by checksums where torch does not count."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kdbench.method import ContractBroken
from kdbench.registry.shared_tensors import SharedTensors, checksum

COUNTED: list[Callable[[Tensor], object]] = [
    lambda x: x.add_(0),
    lambda x: x[0].zero_(),
    lambda x: x.detach().view(-1)[3:].mul_(2),
    lambda x: x.requires_grad_(),
    lambda x: torch.neg(x, out=x),
]


def hidden_data(x: Tensor) -> None:
    x.data[1] = 5


def hidden_numpy(x: Tensor) -> None:
    x.numpy()[0, 0] = -x[0, 0]


def other_memory(x: Tensor) -> None:
    x.data = x.clone()


def watched(x: Tensor, *, contents: bool) -> SharedTensors:
    return SharedTensors([torch.ones(2), x], lambda: ["a", "b"], contents=contents)


@pytest.mark.parametrize("change", [*COUNTED, other_memory])
def test_counted_writes_are_found_without_contents(change: Callable[[Tensor], object]) -> None:
    x = torch.rand(3, 2)
    shared = watched(x, contents=False)
    assert not shared.changed()
    change(x)
    assert shared.changed() == "b"
    with pytest.raises(ContractBroken, match=r"^M changes b, which other methods read: work on"):
        shared.check("M")


@pytest.mark.parametrize("change", [hidden_data, hidden_numpy])
def test_hidden_writes_are_found_by_their_contents(change: Callable[[Tensor], object]) -> None:
    x = torch.rand(3, 2)
    shared = watched(x, contents=True)
    change(x)
    assert shared.changed() == "b"
    assert not shared.changed(contents=False)


def test_reading_is_no_change() -> None:
    x = torch.rand(3, 2)
    shared = watched(x, contents=True)
    x.clone().mul_(2)
    (x * torch.ones(2, requires_grad=True)).sum().backward()
    assert not shared.changed()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_checksum_depends_on_bits_and_places(dtype: torch.dtype) -> None:
    x = torch.tensor([[0, 1], [1, 1]]).to(dtype)
    assert checksum(x) == checksum(x.clone())
    assert checksum(x) != checksum(x.flip(0))
    maps = x.view(1, 2, 2, 1).to(memory_format=torch.channels_last)
    assert checksum(maps) != checksum(maps.flip(1))
    assert checksum(torch.zeros(())) != checksum(-torch.zeros(()))
    assert checksum(torch.zeros(0)) == checksum(torch.zeros(0))
