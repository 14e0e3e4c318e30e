"""Tokens that hold each weight once: where it lies, and how it is scaled, is all that such tokenizers differ in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from wspace.interfaces import Tokenizer, TokenLayout
from wspace.weights.scaling import Scale, fit_scale


class PlacedTokenizer(Tokenizer):
    """Each weight at one place of the tokens, which `where` says, and scaled as `scaling` does it."""

    groups: Tensor
    shift: Tensor
    spread: Tensor

    def __init__(self, layout: TokenLayout, where: Where, scaling: Scaling):
        super().__init__()
        self.layout, self.where, self.scaling = layout, where, scaling
        for name, tensor, kept in scaling.buffers():
            self.register_buffer(name, tensor, persistent=kept)

    def fit(self, weights: Tensor) -> None:
        self.scaling.fit(self, weights)

    def tokenize(self, weights: Tensor) -> Tensor:
        return self.arrange(self.scaling.down(self, weights))

    def detokenize(self, tokens: Tensor) -> Tensor:
        return self.scaling.up(self, self.collect(tokens))

    def arrange(self, values: Tensor) -> Tensor:
        return rearrange(self.where.arrange(values), "b (n d) -> b n d", d=self.layout.width)

    def collect(self, tokens: Tensor) -> Tensor:
        return self.where.collect(rearrange(tokens, "b n d -> b (n d)"))


# ---------------------------------------------------------------- how weights are scaled


class Scaling:
    """Not at all: tokens are the weights as they are, and nothing is kept of each."""

    def buffers(self) -> list[tuple[str, Tensor, bool]]:
        """What the tokenizer is to hold: names, tensors, and which of them are saved with it."""
        return []

    def fit(self, of: PlacedTokenizer, weights: Tensor) -> None:
        """Take the scales from the training zoo (n, P) into the tokenizer."""

    def down(self, of: PlacedTokenizer, weights: Tensor) -> Tensor:
        """(B, P) -> (B, P), as tokens hold them."""
        return weights

    def up(self, of: PlacedTokenizer, values: Tensor) -> Tensor:
        """`down` undone."""
        return values


class Fitted(Scaling):
    """By `wspace.weights.scaling.fit_scale`."""

    def __init__(self, how: Scale, groups: Tensor):
        """`groups` (P,): what scales together."""
        self._how: Scale = how
        self._groups = groups

    def buffers(self) -> list[tuple[str, Tensor, bool]]:
        count = len(self._groups)
        return [
            ("groups", self._groups, False),
            ("shift", torch.zeros(count), True),
            ("spread", torch.ones(count), True),
        ]

    def fit(self, of: PlacedTokenizer, weights: Tensor) -> None:
        shift, spread = fit_scale(weights, of.groups, self._how)
        of.shift.copy_(shift)
        of.spread.copy_(spread)

    def down(self, of: PlacedTokenizer, weights: Tensor) -> Tensor:
        return (weights - of.shift) / of.spread

    def up(self, of: PlacedTokenizer, values: Tensor) -> Tensor:
        return values * of.spread + of.shift


# ---------------------------------------------------------------- where weights lie


class Where(nn.Module, ABC):
    """Where weights lie in the tokens laid side by side."""

    @abstractmethod
    def arrange(self, values: Tensor) -> Tensor:
        """(B, P) -> (B, N*D), padding 0."""

    @abstractmethod
    def collect(self, tokens: Tensor) -> Tensor:
        """`arrange` undone: (B, N*D) -> (B, P)."""


class Places(Where):
    """Each anywhere."""

    place: Tensor
    filler: Tensor
    empty: Tensor

    def __init__(self, place: Tensor, size: int):
        """`place` (P,): of each weight its own, of `size` (N*D) that there are."""
        super().__init__()
        self.register_buffer("place", place, persistent=False)
        empty = torch.ones(size, dtype=torch.bool).index_fill_(0, place, False)
        filler = torch.zeros(size, dtype=torch.long).index_copy_(0, place, torch.arange(len(place)))
        self.register_buffer("filler", filler, persistent=False)  # (N*D,): of each value its weight, of others any
        self.register_buffer("empty", empty.nonzero()[:, 0], persistent=False)  # values that are no weight

    def arrange(self, values: Tensor) -> Tensor:
        return _Arranged.apply(values, self.place, self.filler, self.empty)

    def collect(self, tokens: Tensor) -> Tensor:
        return _Collected.apply(tokens, self.place, self.filler, self.empty)


class SideBySide(Where):
    """Tensor by tensor in the order of the weights, each padded to whole tokens: nothing is kept of each weight."""

    def __init__(self, sizes: list[int], width: int):
        """`sizes` of the tensors; `width` of a token."""
        super().__init__()
        self._sizes, self._width = sizes, width

    def arrange(self, values: Tensor) -> Tensor:
        parts = values.split(self._sizes, dim=1)
        return torch.cat([functional.pad(part, (0, -part.shape[1] % self._width)) for part in parts], dim=1)

    def collect(self, tokens: Tensor) -> Tensor:
        parts = tokens.split([size + -size % self._width for size in self._sizes], dim=1)
        return torch.cat([part[:, :size] for part, size in zip(parts, self._sizes, strict=True)], dim=1)


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
