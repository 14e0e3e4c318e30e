"""Tokens that hold each weight once, scaled: where it lies is all that such tokenizers differ in."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from wspace.interfaces import Tokenizer, TokenLayout
from wspace.weights.scaling import Scale, fit_scale


class PlacedTokenizer(Tokenizer):
    """Each weight at one place of the tokens, scaled by `wspace.weights.scaling.fit_scale`."""

    place: Tensor
    filler: Tensor
    empty: Tensor
    groups: Tensor
    shift: Tensor
    spread: Tensor

    def __init__(self, layout: TokenLayout, place: Tensor, groups: Tensor, scale: Scale):
        """`place` (P,): where each weight lies in the tokens laid side by side (N*D,). `groups` (P,): what scales together."""
        super().__init__()
        self.layout = layout
        self.scale: Scale = scale
        self.register_buffer("place", place, persistent=False)
        empty = torch.ones(layout.mask.numel(), dtype=torch.bool).index_fill_(0, place, False)
        filler = torch.zeros(layout.mask.numel(), dtype=torch.long).index_copy_(0, place, torch.arange(len(place)))
        self.register_buffer("filler", filler, persistent=False)  # (N*D,): of each value its weight, of others any
        self.register_buffer("empty", empty.nonzero()[:, 0], persistent=False)  # values that are no weight
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
        tokens = _Arranged.apply(values, self.place, self.filler, self.empty)
        return rearrange(tokens, "b (n d) -> b n d", d=self.layout.width)

    def collect(self, tokens: Tensor) -> Tensor:
        return _Collected.apply(rearrange(tokens, "b n d -> b (n d)"), self.place, self.filler, self.empty)


class _Arranged(torch.autograd.Function):
    """(B, P) -> (B, N*D). Each value is read from where it comes from, which takes half as long as being written to where it
    goes; and so it is in the gradient, which differentiating that would add up."""

    @staticmethod
    def forward(context: Any, values: Tensor, place: Tensor, filler: Tensor, empty: Tensor) -> Tensor:  # type: ignore[override]
        context.save_for_backward(place, filler, empty)
        return values.index_select(1, filler).index_fill_(1, empty, 0)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        return _Collected.apply(gradient, *context.saved_tensors), None, None, None


class _Collected(torch.autograd.Function):
    """(B, N*D) -> (B, P), as `_Arranged` undone."""

    @staticmethod
    def forward(context: Any, tokens: Tensor, place: Tensor, filler: Tensor, empty: Tensor) -> Tensor:  # type: ignore[override]
        context.save_for_backward(place, filler, empty)
        return tokens.index_select(1, place)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        return _Arranged.apply(gradient, *context.saved_tensors), None, None, None
