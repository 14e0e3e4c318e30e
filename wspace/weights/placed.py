"""Tokens that hold each weight once, scaled: where it lies is all that such tokenizers differ in."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from wspace.interfaces import Tokenizer, TokenLayout
from wspace.weights.scaling import Scale, fit_scale


class PlacedTokenizer(Tokenizer):
    """Each weight at one place of the tokens, scaled by `wspace.weights.scaling.fit_scale`."""

    place: Tensor
    groups: Tensor
    shift: Tensor
    spread: Tensor

    def __init__(self, layout: TokenLayout, place: Tensor, groups: Tensor, scale: Scale):
        """`place` (P,): where each weight lies in the tokens laid side by side (N*D,). `groups` (P,): what scales together."""
        super().__init__()
        self.layout = layout
        self.scale: Scale = scale
        self.register_buffer("place", place, persistent=False)
        self.register_buffer("groups", groups, persistent=False)
        self.register_buffer("shift", torch.zeros(len(place)))
        self.register_buffer("spread", torch.ones(len(place)))

    def fit(self, weights: Tensor) -> None:
        shift, spread = fit_scale(weights, self.groups, self.scale)
        self.shift.copy_(shift)
        self.spread.copy_(spread)

    def tokenize(self, weights: Tensor) -> Tensor:
        return self.arrange((weights - self.shift) / self.spread)

    def detokenize(self, tokens: Tensor) -> Tensor:
        return self.collect(tokens) * self.spread + self.shift

    def arrange(self, values: Tensor) -> Tensor:
        tokens = values.new_zeros(len(values), self.layout.mask.numel())  # (B, N*D)
        return rearrange(tokens.index_copy(1, self.place, values), "b (n d) -> b n d", d=self.layout.width)

    def collect(self, tokens: Tensor) -> Tensor:
        flat = rearrange(tokens, "b n d -> b (n d)")
        return flat.index_select(1, self.place)  # faster than flat[:, place], forward by 5 and backward by 4
