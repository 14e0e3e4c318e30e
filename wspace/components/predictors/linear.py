"""A linear map from the pooled condition, started at ridge regression."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from wspace.interfaces import Condition, Predictor, TokenLayout
from wspace.learning.ridge_regression import Ridge


class Linear(Predictor):
    """`of_zoo` is ridge regression on the pooled condition, its penalty chosen on held-out tasks; `forward` starts there.

    What is trained works on the inputs' first `axes` principal axes (n classes span no more than n), each shrunk to the
    root of its spread, half-way to white. There Adam needs half as many steps: text vectors vary mostly along few axes,
    and what tells classes apart lies along the others.
    """

    def __init__(self, axes: Annotated[int, Ge(1)] = 256, *, layout: TokenLayout, pooled_width: int):
        super().__init__()
        axes = min(axes, pooled_width)
        self.mask: Tensor
        self.line_weight: Tensor
        self.line_bias: Tensor
        self.turn: Tensor
        values = layout.mask.numel()
        self.register_buffer("mask", layout.mask, persistent=False)  # (N, D)
        self.register_buffer("line_weight", torch.zeros(pooled_width, values))
        self.register_buffer("line_bias", torch.zeros(values))
        self.register_buffer("spread", torch.ones(()))
        self.register_buffer("turn", torch.eye(pooled_width, axes))  # (C', axes)
        self.weight = nn.Parameter(torch.zeros(axes, values))
        self.bias = nn.Parameter(torch.zeros(values))
        # One input beside so many others: so scaled that Adam moves it as far as all of them together.
        self.intercept = axes**0.5

    @torch.no_grad()
    def fit(self, tokens: Tensor, condition: Condition, held_out: tuple[Tensor, Condition]) -> None:
        ridge = Ridge.fit(condition.pooled, tokens.flatten(1))
        best, error = ridge.best_penalty(held_out[1].pooled, held_out[0].flatten(1))
        weight = ridge.weight(best)
        self.line_weight.copy_(weight)
        self.line_bias.copy_(ridge.mean_y - ridge.mean_x @ weight)
        left = (error * self.mask.numel() / float(self.mask.sum())) ** 0.5
        self.spread.fill_(max(left, 1e-6))  # networks all alike leave nothing

        first = slice(len(ridge.eigenvalues) - self.turn.shape[1], None)  # eigenvalues ascend
        basis, variance = ridge.basis[:, first], ridge.eigenvalues[first]  # (C', axes), (axes,)
        shrink = (variance + 1e-3 * ridge.eigenvalues.mean().clamp_min(1e-6)) ** -0.25
        shrink = shrink / (variance * shrink.square()).mean().sqrt().clamp_min(1e-6)  # to unit size over all axes
        self.turn.copy_(basis * shrink)
        self.weight.copy_((basis / shrink).T @ weight)  # turn @ this is weight, on the span of these axes
        self.bias.copy_((ridge.mean_y - (ridge.mean_x @ self.turn) @ self.weight) / self.intercept)

    def of_zoo(self, condition: Condition) -> Tensor:
        return (self.line_bias + condition.pooled @ self.line_weight).unflatten(1, self.mask.shape)  # (B, N, D)

    def forward(self, condition: Condition) -> Tensor:
        tokens = self.bias * self.intercept + (condition.pooled @ self.turn) @ self.weight
        return tokens.unflatten(1, self.mask.shape)
