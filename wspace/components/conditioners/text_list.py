"""A task as the list of its classes' texts: one condition token a class, which says at which place it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from wspace.interfaces import Condition, Conditioner, Prompts, Target
from wspace.support.errors import UserError
from wspace.weights.scaling import spread_of


class TextList(Conditioner):
    """Keeps every class text and its place, for targets whose outputs stand for a task's classes in its order.

    A token is a class's text with its place beside it, one-hot. The pooled vector has the text at each place, one after the
    other, by its first `axes` principal axes over the classes of the training tasks (n classes span no more than n), and 1/k
    for k classes: places * axes + 1 values, each of unit variance.

    places: as many as the target has outputs, if not given.
    """

    version: ClassVar[int] = 1
    keeps_order: ClassVar[bool] = True

    def __init__(
        self,
        axes: Annotated[int, Ge(1)] = 64,
        places: Annotated[int, Ge(1)] | None = None,
        *,
        text_dim: int,
        target: Target,
    ):
        super().__init__()
        self.places, axes = places or target.places, min(axes, text_dim)
        if not self.places:
            raise UserError(
                "conditioner 'text-list': this target's outputs stand for no classes in order, so there are no places to tell: "
                "name text-set"
            )
        if self.places < target.places:
            raise UserError(
                f"conditioner 'text-list': it has {self.places} places, and the target outputs for {target.places}"
            )
        self.text_dim, self.width, self.pooled_width = text_dim, text_dim + self.places, self.places * axes + 1
        self.center: Tensor
        self.axes: Tensor
        self.pooled_mean: Tensor
        self.pooled_std: Tensor
        self.register_buffer("center", torch.zeros(text_dim))
        self.register_buffer("axes", torch.zeros(text_dim, axes))
        self.register_buffer("pooled_mean", torch.zeros(self.pooled_width))
        self.register_buffer("pooled_std", torch.ones(self.pooled_width))

    def fit(self, prompts: Prompts) -> None:
        texts = prompts.texts[prompts.mask]
        self.center.copy_(texts.mean(0))
        first = torch.linalg.svd(texts.unique(dim=0) - self.center, full_matrices=False).Vh[: self.axes.shape[1]]
        self.axes.zero_()[:, : len(first)] = first.T
        pooled = self._pool(prompts)
        self.pooled_mean.copy_(pooled.mean(0))
        self.pooled_std.copy_(spread_of(pooled))

    def _pool(self, prompts: Prompts) -> Tensor:
        along = torch.where(prompts.mask[..., None], (prompts.texts - self.center) @ self.axes, 0)  # (B, K, axes)
        return torch.cat([replace(prompts, texts=along).in_places(self.places), 1 / prompts.count()], dim=1)

    def forward(self, prompts: Prompts) -> Condition:
        texts = (prompts.texts - self.center) * self.text_dim**0.5  # values near one
        places = torch.eye(texts.shape[1], self.places, device=texts.device) * self.places**0.5  # (K, places)
        tokens = torch.cat([texts, places.expand(len(texts), -1, -1)], dim=2)
        pooled = (self._pool(prompts) - self.pooled_mean) / self.pooled_std
        return Condition(torch.where(prompts.mask[..., None], tokens, 0), prompts.mask, pooled)

    def null(self, like: Condition) -> Condition:
        """No class: zero tokens, of which the first is kept so that attention has something to look at."""
        mask = torch.zeros_like(like.mask)
        mask[:, 0] = True
        return Condition(torch.zeros_like(like.tokens), mask, torch.zeros_like(like.pooled))
