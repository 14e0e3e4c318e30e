"""A task as the list of its classes' texts: one condition token a class, which says at which place it is."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn import functional

from wspace.interfaces import Condition, Conditioner, Prompts, Target
from wspace.support.errors import UserError
from wspace.support.seeding import stream
from wspace.weights.scaling import spread_of


class TextList(Conditioner):
    """Keeps every class text and its place, for targets whose outputs stand for a task's classes in its order.

    A token is a class's text with its place beside it, one-hot. The pooled vector is 1/k for k classes, and by `pooled`:
    list, the text at each place, one after the other, places * T values; or sum, the texts multiplied by random signs of
    their place and added up, T values (binding by multiplication, superposition by addition: Gayler, 1998, after Plate,
    1995). Linear paths can read of the sum what they can of the list as long as places times classes are no more than T.
    Each value is brought to unit variance.

    places: as many as the target has outputs, if not given.
    """

    version: ClassVar[int] = 1
    keeps_order: ClassVar[bool] = True

    def __init__(
        self,
        pooled: Literal["list", "sum"] = "list",
        places: Annotated[int, Ge(1)] | None = None,
        *,
        text_dim: int,
        target: Target,
    ):
        super().__init__()
        self.places = places or target.places
        if not self.places:
            raise UserError(
                "conditioner 'text-list': this target's outputs stand for no classes in order, so there are no places to tell: "
                "name text-set"
            )
        if self.places < target.places:
            raise UserError(
                f"conditioner 'text-list': it has {self.places} places, and the target outputs for {target.places}"
            )
        self.text_dim, self.width = text_dim, text_dim + self.places
        self.pooled_width = (text_dim if pooled == "sum" else self.places * text_dim) + 1
        self.signs: Tensor | None  # (places, T), of a sum
        bits = torch.randint(2, (self.places, text_dim), generator=stream(0, "text-list", self.places))
        self.register_buffer("signs", 2.0 * bits - 1 if pooled == "sum" else None, persistent=False)
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
        listed = prompts.in_places(self.places)  # (B, places * T)
        if self.signs is not None:
            there = functional.pad(prompts.mask, (0, self.places))[:, : self.places, None]  # (B, places, 1)
            texts = listed.unflatten(1, (self.places, self.text_dim))
            listed = ((texts - self.center) * there * self.signs).sum(1)  # (B, T)
        return torch.cat([listed, 1 / prompts.count()], dim=1)

    def forward(self, prompts: Prompts) -> Condition:
        count, shown = prompts.mask.shape[1], prompts.mask[..., None]
        places = torch.eye(count, self.places, device=prompts.texts.device)  # (K, places)
        texts = (prompts.texts - self.center) * self.text_dim**0.5  # values near one
        tokens = torch.cat([texts, (places * self.places**0.5).expand(len(texts), -1, -1)], dim=2)
        pooled = (self._pool(prompts) - self.pooled_mean) / self.pooled_std
        return Condition(torch.where(shown, tokens, 0), prompts.mask, pooled)

    def null(self, like: Condition) -> Condition:
        """No class: zero tokens, of which the first is kept so that attention has something to look at."""
        mask = torch.zeros_like(like.mask)
        mask[:, 0] = True
        return Condition(torch.zeros_like(like.tokens), mask, torch.zeros_like(like.pooled))
