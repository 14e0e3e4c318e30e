"""A task as the set of its classes' texts: one condition token a class."""

from __future__ import annotations

import torch
from torch import Tensor

from wspace.interfaces import Condition, Conditioner, Prompts
from wspace.weights.scaling import spread_of


class TextSet(Conditioner):
    """Keeps every class text. The pooled vector is the mean text and 1/k for k classes, each to unit variance."""

    def __init__(self, *, text_dim: int):
        super().__init__()
        self.width, self.pooled_width = text_dim, text_dim + 1
        self.center: Tensor
        self.pooled_mean: Tensor
        self.pooled_std: Tensor
        self.register_buffer("center", torch.zeros(text_dim))
        self.register_buffer("pooled_mean", torch.zeros(self.pooled_width))
        self.register_buffer("pooled_std", torch.ones(self.pooled_width))

    def fit(self, prompts: Prompts) -> None:
        self.center.copy_(prompts.texts[prompts.mask].mean(0))
        pooled = self._pool(prompts)
        self.pooled_mean.copy_(pooled.mean(0))
        self.pooled_std.copy_(spread_of(pooled))

    def _pool(self, prompts: Prompts) -> Tensor:
        return torch.cat([prompts.mean_text(), 1 / prompts.count()], dim=1)  # (B, T + 1)

    def forward(self, prompts: Prompts) -> Condition:
        centered = torch.where(prompts.mask[..., None], prompts.texts - self.center, 0)  # (B, K, T)
        tokens = centered * self.width**0.5  # values near one
        return Condition(tokens, prompts.mask, (self._pool(prompts) - self.pooled_mean) / self.pooled_std)

    def null(self, like: Condition) -> Condition:
        """No class: zero tokens, of which the first is kept so that attention has something to look at."""
        mask = torch.zeros_like(like.mask)
        mask[:, 0] = True
        return Condition(torch.zeros_like(like.tokens), mask, torch.zeros_like(like.pooled))
