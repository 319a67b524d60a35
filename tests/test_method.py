"""Methods of ``Features``: ``named``, ``map`` and ``detached``."""

from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from random_features import features
from torch import Tensor

from kdbench.method import Features


def test_tensors_are_named_in_the_order_of_the_fields() -> None:
    f = features(channels=(4, 6))
    names = ["stem", "stages[0]", "stages[1]", "preacts[0]", "preacts[1]"]
    names += ["embedding", "logits", "last"]
    expected = [f.stem, *f.stages, *f.preacts, f.embedding, f.logits, f.last]
    assert [name for name, _ in f.named()] == names
    assert all(x is y for (_, x), y in zip(f.named(), expected, strict=True))


def test_map_keeps_structure() -> None:
    f = features()
    doubled = f.map(lambda x: 2 * x)
    assert type(doubled) is Features
    assert [name for name, _ in doubled.named()] == [name for name, _ in f.named()]
    for (_, x), (_, y) in zip(f.named(), doubled.named(), strict=True):
        assert torch.equal(y, 2 * x)


@given(st.lists(st.integers(0, 3), min_size=7, max_size=7))
def test_repeated_tensor_is_mapped_once(choice: list[int]) -> None:
    """Results are the same object if and only if the arguments are."""
    pool = [torch.full((2, 3, 1, 1), float(i)) for i in range(4)]
    stem, a, b, c, d, embedding, logits = (pool[i] for i in choice)
    f = Features(stem, (a, b), (c, d), embedding, logits)
    calls: list[Tensor] = []

    def function(x: Tensor) -> Tensor:
        calls.append(x)
        return x + 1

    mapped = [x for _, x in f.map(function).named()]
    assert len(calls) == len(set(choice))
    for i, x in enumerate(mapped):
        assert torch.equal(x, pool[choice[i]] + 1)
        for j, y in enumerate(mapped):
            assert (x is y) == (choice[i] == choice[j])


def test_detached_features_pass_no_gradient() -> None:
    f = features(grad=True)
    f = replace(f, preacts=f.stages)
    constants = f.detached()
    assert not any(x.requires_grad for _, x in constants.named())
    assert all(x.requires_grad for _, x in f.named())
    for (_, x), (_, y) in zip(f.named(), constants.named(), strict=True):
        assert x.data_ptr() == y.data_ptr()
    assert all(x is y for x, y in zip(constants.stages, constants.preacts, strict=True))


def test_fields_of_features_are_those_of_the_contract_and_frozen() -> None:
    names = {field.name for field in fields(Features)}
    assert names == {"stem", "stages", "preacts", "embedding", "logits", "peers", "views", "last"}
    with pytest.raises(AttributeError):
        features().stem = torch.zeros(1)  # type: ignore[misc]
