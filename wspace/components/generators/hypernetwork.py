"""A network that makes networks in one pass (Ha et al., 2017)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn

from wspace.interfaces import Closed, Condition, Generator, Pairs, TokenLayout
from wspace.learning.ridge_regression import Ridge
from wspace.support.settings import Generate


class Hypernetwork(Generator):
    """An MLP from the pooled condition to all tokens (Ha et al., 2017, "HyperNetworks"); it draws nothing.

    What it makes lies in `width` directions about a mean, so its last layer, which has nearly all of its parameters, is of
    size width * weights; that layer starts at ridge regression from the MLP's fresh features to the zoo's networks.
    learns: by the loss of its networks on images (`task_loss`), or by their distance to the zoo's (`train`); from both at
    once with `learns: tasks` and `task_loss.zoo` above 0.
    """

    version: ClassVar[int] = 1

    def __init__(
        self,
        width: Annotated[int, Ge(1)] = 128,
        depth: Annotated[int, Ge(1)] = 2,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
        learns: Literal["tasks", "weights"] = "tasks",
        *,
        layout: TokenLayout,
        pooled_width: int,
    ):
        super().__init__()
        self.learns = learns
        self.mask: Tensor
        self.scale: Tensor
        self.register_buffer("mask", layout.mask, persistent=False)  # (N, D)
        self.register_buffer("scale", torch.ones(()))  # of the zoo's tokens about their mean: the unit of the loss
        self.enter = nn.Linear(pooled_width, width)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.GELU(), nn.Dropout(dropout), nn.Linear(width, width)) for _ in range(depth - 1)
        )
        self.leave = nn.Sequential(nn.GELU(), nn.LayerNorm(width), nn.Dropout(dropout))
        self.weight = nn.Parameter(torch.zeros(width, layout.mask.numel()))
        self.bias = nn.Parameter(torch.zeros(layout.mask.numel()))

    def _features(self, condition: Condition) -> Tensor:
        """(B, width)."""
        hidden = self.enter(condition.pooled)
        for layer in self.layers:
            hidden = hidden + layer(hidden)
        return self.leave(hidden)

    def _tokens(self, condition: Condition) -> Tensor:
        """(B, N, D)."""
        tokens = self.bias + self._features(condition) @ self.weight
        return tokens.unflatten(1, self.mask.shape) * self.mask

    @torch.no_grad()
    def fit(self, closed: Closed) -> None:
        tokens, (others, asked) = closed.tokens.flatten(1), closed.held_out
        ridge = Ridge.fit(self._features(closed.condition), tokens)
        weight = ridge.weight(ridge.best_penalty(self._features(asked), others.flatten(1))[0])
        self.weight.copy_(weight)
        self.bias.copy_(ridge.mean_y - ridge.mean_x @ weight)
        spread = ((tokens - ridge.mean_y).square().sum() / (len(tokens) * self.mask.sum())).sqrt()
        self.scale.fill_(spread.clamp_min(1e-6))  # networks all alike leave nothing

    def task_parameters(self) -> list[nn.Parameter]:
        return list(self.parameters()) if self.learns == "tasks" else []

    def typical(self, condition: Condition) -> Tensor:
        return self._tokens(condition)

    def loss(self, pairs: Pairs, rng: torch.Generator) -> dict[str, Tensor]:
        if self.learns == "tasks":
            return {}
        error = (self._tokens(pairs.condition) - pairs.tokens) / self.scale
        return {"weights": ((error.float() * self.mask).square().sum((1, 2)) / self.mask.sum()).mean()}

    def estimate(self, pairs: Pairs, noise: float, rng: torch.Generator) -> Tensor:
        return self._tokens(pairs.condition)  # there is no noise in how it makes them

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
        return self._tokens(condition)
