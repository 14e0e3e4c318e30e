"""A linear map from the pooled condition, started at ridge regression."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from wspace.interfaces import Condition, Predictor, TokenLayout
from wspace.learning.lines import Line
from wspace.learning.ridge_regression import Ridge


class Linear(Line, Predictor):
    """`of_zoo` is ridge regression on the pooled condition, its penalty chosen on held-out tasks; `forward` starts there.

    What is trained works on the inputs' first `axes` principal axes (n classes span no more than n), each shrunk to the
    root of its spread, half-way to white. There Adam needs half as many steps: text vectors vary mostly along few axes,
    and what tells classes apart lies along the others.
    """

    def __init__(self, axes: Annotated[int, Ge(1)] = 256, *, layout: TokenLayout, pooled_width: int):
        super().__init__(pooled_width, layout.mask.numel(), axes)
        self.mask: Tensor
        self.register_buffer("mask", layout.mask, persistent=False)  # (N, D)
        self.register_buffer("spread", torch.ones(()))

    @torch.no_grad()
    def fit(self, tokens: Tensor, condition: Condition, held_out: tuple[Tensor, Condition]) -> None:
        ridge = Ridge.fit(condition.pooled, tokens.flatten(1))
        best, error = ridge.best_penalty(held_out[1].pooled, held_out[0].flatten(1))
        self.take(ridge, best)
        left = (error * self.mask.numel() / float(self.mask.sum())) ** 0.5
        self.spread.fill_(max(left, 1e-6))  # networks all alike leave nothing

    def of_zoo(self, condition: Condition) -> Tensor:
        return self.fitted(condition.pooled).unflatten(1, self.mask.shape)  # (B, N, D)

    def forward(self, condition: Condition) -> Tensor:
        return self.trained(condition.pooled).unflatten(1, self.mask.shape)
