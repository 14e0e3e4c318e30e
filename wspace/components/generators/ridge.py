"""Ridge regression from the condition to weights: what a generator that is trained has to beat."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from wspace.interfaces import Closed, Condition, Generator, Pairs, TokenLayout
from wspace.learning.ridge_regression import Ridge as Fitted
from wspace.support.settings import Generate


class Ridge(Generator):
    """A closed-form linear map from the pooled condition, its penalty chosen by squared error on held-out tasks.

    It has no parameter that anything trains, and draws nothing: a task has one network, at every temperature. Unlike the
    report's opponent of that name, which reads the same description of a task in every recipe, it reads what the recipe's
    conditioner says.
    """

    version: ClassVar[int] = 1

    def __init__(self, *, layout: TokenLayout, pooled_width: int):
        super().__init__()
        self.mask: Tensor
        self.weight: Tensor
        self.bias: Tensor
        self.register_buffer("mask", layout.mask, persistent=False)  # (N, D)
        self.register_buffer("weight", torch.zeros(pooled_width, layout.mask.numel()))
        self.register_buffer("bias", torch.zeros(layout.mask.numel()))

    @torch.no_grad()
    def fit(self, closed: Closed) -> None:
        ridge = Fitted.fit(closed.condition.pooled, closed.tokens.flatten(1))
        tokens, condition = closed.held_out
        weight = ridge.weight(ridge.best_penalty(condition.pooled, tokens.flatten(1))[0])
        self.weight.copy_(weight)
        self.bias.copy_(ridge.mean_y - ridge.mean_x @ weight)

    def loss(self, pairs: Pairs, rng: torch.Generator) -> dict[str, Tensor]:
        return {}

    @torch.no_grad()
    def sample(
        self,
        condition: Condition,
        null: Condition,
        how: Generate,
        rng: torch.Generator,
        watch: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        self.sampler_of(how)
        return (self.bias + condition.pooled @ self.weight).unflatten(1, self.mask.shape) * self.mask
