from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from kdbench import tensors


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return random numbers that require a gradient."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_()


def channels_last(x: Tensor) -> Tensor:
    return x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()


def columns(x: Tensor) -> Tensor:
    """Return inner products of channels over positions."""
    flat = x.flatten(2).mT
    return tensors.column_products(flat, flat.tanh())


@pytest.mark.parametrize(
    "function",
    [
        tensors.gram,
        tensors.attention,
        tensors.mean_square,
        tensors.squared_distances,
        tensors.squared_gaps,
        columns,
        lambda x: tensors.affinity(x, 1e-6),
        lambda x: tensors.sum_squares(x, 0, 2),
        lambda x: tensors.row_products(x.flatten(2)),
    ],
)
def test_gradients_are_right_in_any_memory_order(function: Callable[[Tensor], Tensor]) -> None:
    x = draw(3, 4, 2, 5)
    assert torch.allclose(function(x), function(channels_last(x)), rtol=1e-12, atol=1e-12)
    assert gradcheck(function, x)
    assert gradcheck(function, channels_last(x))


def test_values_by_plain_loops() -> None:
    x, y = draw(3, 4).detach(), draw(3, 5, seed=1).detach()
    for i in range(3):
        for j in range(3):
            product = sum(x[i, d] * x[j, d] for d in range(4))
            gap = sum((x[i, d] - x[j, d]) ** 2 for d in range(4))
            assert tensors.row_products(x)[i, j].item() == pytest.approx(float(product))
            assert tensors.squared_distances(x)[i, j].item() == pytest.approx(float(gap), abs=1e-12)
    for i in range(4):
        for j in range(5):
            product = sum(x[n, i] * y[n, j] for n in range(3))
            assert tensors.column_products(x, y)[i, j].item() == pytest.approx(float(product))
    squares = [sum(float(v) ** 2 for v in row) for row in x]
    assert tensors.sum_squares(x, 1).tolist() == pytest.approx(squares)
    assert float(tensors.mean_square(x)) == pytest.approx(sum(squares) / 12)


@pytest.mark.parametrize(
    "function",
    [tensors.gram, tensors.attention, tensors.mean_square, tensors.squared_gaps, columns],
)
def test_gradients_keep_channels_last(function: Callable[[Tensor], Tensor]) -> None:
    """A gradient in another order would cost a copy in every layer below."""
    x = channels_last(draw(3, 4, 6, 5, dtype=torch.float32))
    gradients: list[Tensor] = []
    use = x.view_as(x)
    use.register_hook(gradients.append)
    function(use).square().sum().backward()
    assert gradients[0].is_contiguous(memory_format=torch.channels_last)


def test_rows_do_not_copy_maps_in_channels_last() -> None:
    x = channels_last(draw(3, 4, 6, 5))
    assert tensors.rows(x).shape == (3, 120)
    assert tensors.rows(x).data_ptr() == x.data_ptr()
    assert tensors.rows(x.contiguous()).data_ptr() != x.data_ptr()
    assert torch.equal(tensors.rows(draw(3, 4)), draw(3, 4))


def test_common_offset_changes_no_distance() -> None:
    x = draw(6, 8, dtype=torch.float32)
    far = (x + 1000).detach().requires_grad_()
    near = tensors.squared_distances(x)
    assert torch.allclose(near, tensors.squared_distances(far), rtol=1e-3, atol=1e-2)
    [a] = torch.autograd.grad(near.square().sum(), x)
    [b] = torch.autograd.grad(tensors.squared_distances(far).square().sum(), far)
    assert torch.allclose(a, b, rtol=1e-3, atol=1e-2 * float(a.abs().max()))
