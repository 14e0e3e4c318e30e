"""A linear map that begins at ridge regression and is then trained by gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wspace.learning.ridge_regression import Ridge


class Line(nn.Module):
    """Inputs (B, C) -> values (B, Q): `fitted`, in closed form, which stays; and `trained`, which starts there.

    What is trained works on the inputs' first `axes` principal axes, each shrunk to the root of its spread, half-way to white.
    There Adam needs half as many steps: text vectors vary mostly along few axes, and what tells classes apart lies along the
    others.
    """

    def __init__(self, inputs: int, values: int, axes: int):
        super().__init__()
        axes = min(axes, inputs)
        self.line_weight: Tensor
        self.line_bias: Tensor
        self.turn: Tensor
        self.register_buffer("line_weight", torch.zeros(inputs, values))
        self.register_buffer("line_bias", torch.zeros(values))
        self.register_buffer("turn", torch.eye(inputs, axes))  # (C, axes)
        self.weight = nn.Parameter(torch.zeros(axes, values))
        self.bias = nn.Parameter(torch.zeros(values))
        # One input beside so many others: so scaled that Adam moves it as far as all of them together.
        self.intercept = axes**0.5

    @torch.no_grad()
    def take(self, ridge: Ridge, penalty: float) -> None:
        """Both maps are this regression's, as far as its axes reach."""
        weight = ridge.weight(penalty)
        self.line_weight.copy_(weight)
        self.line_bias.copy_(ridge.mean_y - ridge.mean_x @ weight)

        first = slice(len(ridge.eigenvalues) - self.turn.shape[1], None)  # eigenvalues ascend
        basis, variance = ridge.basis[:, first], ridge.eigenvalues[first]  # (C, axes), (axes,)
        shrink = (variance + 1e-3 * ridge.eigenvalues.mean().clamp_min(1e-6)) ** -0.25
        shrink = shrink / (variance * shrink.square()).mean().sqrt().clamp_min(1e-6)  # to unit size over all axes
        self.turn.copy_(basis * shrink)
        self.weight.copy_((basis / shrink).T @ weight)  # turn @ this is weight, on the span of these axes
        self.bias.copy_((ridge.mean_y - (ridge.mean_x @ self.turn) @ self.weight) / self.intercept)

    def fitted(self, inputs: Tensor) -> Tensor:
        return self.line_bias + inputs @ self.line_weight

    def trained(self, inputs: Tensor) -> Tensor:
        return self.bias * self.intercept + (inputs @ self.turn) @ self.weight
