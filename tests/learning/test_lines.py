"""A predictor's products: as fast as rows that begin on a line of the cache are, and the same numbers."""

from __future__ import annotations

import pytest
import torch

from wspace.learning import ridge_regression
from wspace.learning.lines import ALIGNED, Line, product
from wspace.learning.ridge_regression import Ridge


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


@pytest.mark.parametrize(("pairs", "axes"), [(30, 6), (30, 9), (5, 6), (5, 3)])
def test_a_line_to_very_many_values_is_the_same_on_its_axes(
    pairs: int, axes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And of at most so many parameters, and buffers, as it has axes: no matrix from all inputs."""
    rng = torch.Generator().manual_seed(0)
    x, y, asked = (torch.randn(shape, generator=rng) for shape in ((pairs, 9), (pairs, 40), (3, 9)))
    lines = []
    for large in (9 * 40, 9 * 40 - 1):
        monkeypatch.setattr(ridge_regression, "LARGE", large)
        lines.append(Line(9, 40, axes))
        lines[-1].take(Ridge.fit(x, y), 0.01)
    whole, thin = lines
    assert whole.line_weight.shape == (9, 40) and thin.line_weight.shape == thin.weight.shape == (axes, 40)
    torch.testing.assert_close(thin.trained(asked), whole.trained(asked), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(thin.fitted(asked), thin.trained(asked))
    if axes >= min(pairs - 1, 9):  # nothing is left out
        torch.testing.assert_close(thin.fitted(asked), whole.fitted(asked), rtol=1e-4, atol=1e-4)
    before = thin.fitted(asked)
    with torch.no_grad():
        thin.weight.add_(1)
    assert torch.equal(thin.fitted(asked), before) and not torch.equal(thin.trained(asked), before)
