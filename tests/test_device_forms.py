"""The form for GPUs gives the values of the form for CPUs, whose bits are as in records."""

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from step_operations import Recorder
from torch import Tensor

from kdbench.device_forms import batched, gpu_forms, on_gpu, pool, together

# Height and width of maps and of cells: published networks on 32x32 images have the sizes of the
# first line; sizes in the last line do not divide.
SIZES = [
    *[(32, 16), (32, 8), (32, 4), (16, 8), (16, 4), (16, 2), (8, 4), (8, 2), (4, 2)],
    *[(32, 1), (8, 1), (5, 1), (2, 1), (1, 1), (4, 4), (56, 28), (28, 7)],
    *[(24, 8), (9, 3), (6, 2), (10, 2), (14, 2), (28, 4)],
    *[(7, 4), (7, 2), (14, 4), (5, 3), (9, 8), (2, 4)],
]
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def maps(
    height: int, width: int, dtype: torch.dtype, form: str = "contiguous", channels: int = 17
) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, channels, height, width, generator=generator, dtype=torch.float64)
    return x.to(dtype).contiguous(memory_format=FORMATS[form]).requires_grad_()


def gradient(x: Tensor, result: Tensor) -> Tensor:
    """Return the gradient of a fixed weighted sum of the result."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(result.shape, generator=generator, dtype=torch.float64)
    [grad] = torch.autograd.grad(result, x, weight.to(result))
    return grad


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("size", "cells"), SIZES)
def test_pool_has_the_bits_of_adaptive_pooling_on_a_cpu(
    size: int, cells: int, dtype: torch.dtype, form: str
) -> None:
    for channels, width, across in ((17, size, cells), (64, size, cells), (5, 2 * size, cells)):
        x = maps(size, width, dtype, form, channels)
        mine, expected = pool(x, cells, across), F.adaptive_avg_pool2d(x, (cells, across))
        assert torch.equal(mine, expected)
        assert mine.stride() == expected.stride()
        a, b = gradient(x, mine), gradient(x, expected)
        assert torch.equal(a, b)
        assert a.stride() == b.stride()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("size", "cells"), SIZES)
def test_pool_has_the_same_values_on_a_gpu(size: int, cells: int, form: str) -> None:
    for width, across in ((size, cells), (2 * size, cells), (size, 1), (3 * size, 2)):
        x = maps(size, width, torch.float64, form)
        expected = F.adaptive_avg_pool2d(x, (cells, across))
        with gpu_forms(), Recorder() as recorder:
            mine = pool(x, cells, across)
            grad = gradient(x, mine)
        torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(grad, gradient(x, expected), rtol=1e-12, atol=1e-12)
        assert not [o.name for o in recorder.operations if "adaptive" in o.name]


@pytest.mark.parametrize(("size", "cells"), [(8, 4), (8, 1), (9, 3), (7, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_pool_keeps_the_type_in_autocast(size: int, cells: int, dtype: torch.dtype) -> None:
    x = maps(size, size, dtype)
    with gpu_forms(), torch.autocast("cpu", torch.bfloat16):
        mine = pool(x, cells, cells)
    assert mine.dtype == dtype
    near = F.adaptive_avg_pool2d(x.double(), cells).to(dtype)
    tolerance = {torch.float32: 1e-6, torch.bfloat16: 1e-2}[dtype]
    torch.testing.assert_close(mine, near, rtol=tolerance, atol=tolerance)


def matrices(n: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.rand(4, 4, generator=generator, dtype=torch.float64).requires_grad_()
        for _ in range(n)
    ]


def scaled(x: Tensor, calls: list[Any]) -> Tensor:
    calls.append(x.shape)
    return x.square() / x.sum((-2, -1), keepdim=True)


def gap(a: Tensor, b: Tensor, calls: list[Any]) -> Tensor:
    calls.append(a.shape)
    return (a - b).square().mean((-2, -1))


@pytest.mark.parametrize(("students", "teachers"), [(1, 1), (3, 2)])
def test_together_has_the_same_values_on_a_gpu(students: int, teachers: int) -> None:
    s, t = matrices(students, 0), [x.detach() for x in matrices(teachers, 1)]
    outcomes = []
    for gpu in (False, True):
        calls: list[Any] = []
        with gpu_forms() if gpu else torch.enable_grad():
            a, b = together(partial(scaled, calls=calls), s, t)
        assert len(calls) == (1 if gpu else students + teachers)
        assert [len(a), len(b)] == [students, teachers]
        assert not any(x.requires_grad for x in b)
        total = sum(((i + 1) * x * b[0]).sum() for i, x in enumerate(a))
        assert isinstance(total, Tensor)
        outcomes.append([*a, *b, *torch.autograd.grad(total, s)])
    torch.testing.assert_close(*outcomes, rtol=1e-12, atol=1e-12)


def test_batched_has_the_same_values_on_a_gpu() -> None:
    a, b = matrices(3, 0), matrices(3, 1)
    outcomes = []
    for gpu in (False, True):
        calls: list[Any] = []
        with gpu_forms() if gpu else torch.enable_grad():
            result = batched(partial(gap, calls=calls), a, b)
        assert len(calls) == (1 if gpu else 3)
        assert result.shape == (3,)
        grads = torch.autograd.grad((result * torch.tensor([1.0, 2.0, 3.0])).sum(), [*a, *b])
        outcomes.append([result, *grads])
    torch.testing.assert_close(*outcomes, rtol=1e-12, atol=1e-12)


def test_forms_for_gpus_end_with_the_context() -> None:
    x = torch.zeros(1)
    assert not on_gpu(x)
    with pytest.raises(KeyError), gpu_forms():
        assert on_gpu(x)
        raise KeyError
    assert not on_gpu(x)
