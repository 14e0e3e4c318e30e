"""A linear map that begins at ridge regression and is then trained by gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from wspace.learning.ridge_regression import Ridge, is_large
from wspace.learning.slabs import collected


class Line(nn.Module):
    """Inputs (B, C) -> values (B, Q): `fitted`, in closed form, which stays; and `trained`, which starts there.

    What is trained works on the inputs' first `axes` principal axes, each shrunk to the root of its spread, half-way to white.
    There Adam needs half as many steps: text vectors vary mostly along few axes, and what tells classes apart lies along the
    others.

    Of so many values that a matrix from all inputs is large (`is_large`), `fitted` works on these axes as well, and no such
    matrix is made. Axes beyond those that the pairs span stay at zero.
    """

    def __init__(self, inputs: int, values: int, axes: int):
        super().__init__()
        axes = min(axes, inputs)
        self.thin = is_large(inputs, values)
        self.line_weight: Tensor
        self.line_bias: Tensor
        self.turn: Tensor
        self.register_buffer("line_weight", torch.zeros(axes if self.thin else inputs, values))
        self.register_buffer("line_bias", torch.zeros(values))
        self.register_buffer("turn", torch.eye(inputs, axes))  # (C, axes)
        self.weight = nn.Parameter(torch.zeros(axes, values))
        self.bias = nn.Parameter(torch.zeros(values))
        # One input beside so many others: so scaled that Adam moves it as far as all of them together.
        self.intercept = axes**0.5

    @torch.no_grad()
    def take(self, ridge: Ridge, penalty: float) -> None:
        """Both maps are this regression's, as far as its axes reach."""
        first = slice(max(0, len(ridge.eigenvalues) - self.turn.shape[1]), None)  # eigenvalues ascend
        basis, variance = ridge.basis[:, first], ridge.eigenvalues[first]  # (C, axes), (axes,)
        shrink = (variance + 1e-3 * ridge.mean_eigenvalue.clamp_min(1e-6)) ** -0.25
        shrink = shrink / (variance * shrink.square()).mean().sqrt().clamp_min(1e-6)  # to unit size over all axes
        if self.thin:
            spanned = len(variance)
            self.turn.zero_()[:, :spanned] = basis * shrink
            self.weight.zero_()[:spanned] = ridge.on_axes(penalty)[first] / shrink[:, None]
            self.line_weight.copy_(self.weight)
            self.line_bias.copy_(ridge.mean_y - (ridge.mean_x @ self.turn) @ self.weight)
            self.bias.copy_(self.line_bias / self.intercept)
            return
        weight = ridge.weight(penalty)
        self.line_weight.copy_(weight)
        self.line_bias.copy_(ridge.mean_y - ridge.mean_x @ weight)
        self.turn.copy_(basis * shrink)
        self.weight.copy_((basis / shrink).T @ weight)  # turn @ this is weight, on the span of these axes
        self.bias.copy_((ridge.mean_y - (ridge.mean_x @ self.turn) @ self.weight) / self.intercept)

    def fitted(self, inputs: Tensor) -> Tensor:
        return self.line_bias + product(inputs @ self.turn if self.thin else inputs, self.line_weight)

    def trained(self, inputs: Tensor) -> Tensor:
        return self.bias * self.intercept + product(inputs @ self.turn, self.weight)


ALIGNED = 16  # values of float32 that fill a line of the processor's cache
ROWS, COLUMNS = 16, 1024
"""Of a product, below which nothing is gained, and MKL adds up in an order that depends on the alignment."""


def product(inputs: Tensor, weight: Tensor) -> Tensor:
    """inputs (..., C) @ weight (C, Q): (..., Q). To the bit where it was tried; sooner for matrices of float32 on a CPU.

    The gradient of a weight whose factors are `collected` is left to who collects them.
    """
    rows_begin_anywhere = weight.shape[1] % ALIGNED > 0
    plain = weight.dtype == inputs.dtype == torch.float32 and not torch.is_autocast_enabled(weight.device.type)
    worth_it = rows_begin_anywhere or collected(weight) is not None
    if weight.device.type == "cpu" and plain and inputs.ndim == 2 and worth_it:
        return _Product.apply(inputs, weight)
    return inputs @ weight


class _Product(torch.autograd.Function):
    """A product, and a gradient, whose rows each begin on a line of the cache: MKL writes other ones at half the speed."""

    @staticmethod
    def forward(context: Any, inputs: Tensor, weight: Tensor) -> Tensor:  # type: ignore[override]
        context.save_for_backward(inputs, weight)
        return _with_aligned_rows(inputs, weight)

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:  # type: ignore[override]
        inputs, weight = context.saved_tensors
        of_inputs, of_weight = context.needs_input_grad
        factors = collected(weight) if of_weight else None
        if factors is not None:
            factors.append((inputs, gradient))
            of_weight = False
        return (
            gradient @ weight.mT if of_inputs else None,
            _with_aligned_rows(inputs.mT, gradient) if of_weight else None,
        )


def _with_aligned_rows(left: Tensor, right: Tensor) -> Tensor:
    """left @ right, as a view of something a little wider where that is worth it."""
    rows, columns = len(left), right.shape[1]
    if rows < ROWS or columns < COLUMNS:
        return left @ right
    wider = left.new_empty(rows, -(-columns // ALIGNED) * ALIGNED)
    return torch.mm(left, right, out=wider[:, :columns])
