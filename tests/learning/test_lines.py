"""A predictor's products: as fast as rows that begin on a line of the cache are, and the same numbers."""

from __future__ import annotations

import pytest
import torch

from wspace.learning.lines import ALIGNED, product


def drawn(columns: int, rows: int = 20, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(columns)
    shapes = (rows, 17), (17, columns), (rows, columns)
    return [torch.randn(shape, generator=rng).to(dtype) for shape in shapes]


@pytest.mark.parametrize("rows", [1, 2, 20])
@pytest.mark.parametrize("columns", [1, 43, 1024, 1333])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_product_and_its_gradients_are_matmuls(columns: int, rows: int, dtype: torch.dtype) -> None:
    """To the bit with MKL where this was measured; another processor may add up rows that begin elsewhere in another order."""
    inputs, weight, gradient = drawn(columns, rows, dtype)
    for trained in ((inputs, weight), (weight,), (inputs,)):
        for tensor in (inputs, weight):
            tensor.requires_grad_(any(tensor is one for one in trained))
        ours, plain = product(inputs, weight), inputs @ weight
        torch.testing.assert_close(ours, plain)
        for one, other in zip(
            torch.autograd.grad(ours, trained, gradient), torch.autograd.grad(plain, trained, gradient), strict=True
        ):
            torch.testing.assert_close(one, other)


def test_rows_that_would_begin_anywhere_begin_on_a_line_of_the_cache() -> None:
    inputs, weight, _ = drawn(1333)
    assert product(inputs, weight).stride() == (84 * ALIGNED, 1)


def test_autocast_has_its_way() -> None:
    inputs, weight, _ = drawn(1333)
    with torch.autocast("cpu", torch.bfloat16):
        assert product(inputs, weight).dtype == torch.bfloat16


def test_a_trained_weight_gets_a_gradient_laid_out_as_itself() -> None:
    inputs, weight, gradient = drawn(1333)
    weight.requires_grad_()
    product(inputs, weight).backward(gradient)
    assert weight.grad is not None and weight.grad.stride() == weight.stride()
