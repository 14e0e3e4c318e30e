"""Uniform blocks of each tensor, one token a block."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Ge
from einops import rearrange
from torch import Tensor

from wspace.interfaces import Tokenizer, TokenLayout
from wspace.interfaces.weights import WeightSpec
from wspace.weights.scaling import Scale, fit_scale


class Chunk(Tokenizer):
    """Each tensor cut into blocks of `size` values, the last one padded (Tian et al., 2025, eq. 4; Peebles et al., 2022).

    `scale` is that of `wspace.weights.scaling.fit_scale`: minmax block by block as in the paper, the others tensor by tensor.
    """

    def __init__(
        self,
        size: Annotated[int, Ge(1)] = 576,
        scale: Literal["minmax", "zscore", "centered"] = "minmax",
        *,
        spec: WeightSpec,
    ):
        super().__init__()
        self.scale: Scale = scale
        places, tensors, blocks = [], [], 0
        for number, entry in enumerate(spec.entries):
            places.append(torch.arange(entry.size) + blocks * size)
            tensors.append(torch.full((entry.size,), number))
            blocks += -(-entry.size // size)
        place = torch.cat(places)  # (P,): where each weight lies in the padded (N*D,)
        mask = torch.zeros(blocks * size, dtype=torch.bool)
        mask[place] = True
        self.layout = TokenLayout(rearrange(mask, "(n d) -> n d", d=size))
        self.place: Tensor
        self.groups: Tensor
        self.shift: Tensor
        self.spread: Tensor
        self.register_buffer("place", place, persistent=False)
        self.register_buffer("groups", place // size if scale == "minmax" else torch.cat(tensors), persistent=False)
        self.register_buffer("shift", torch.zeros(spec.size))
        self.register_buffer("spread", torch.ones(spec.size))

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
        return rearrange(tokens, "b n d -> b (n d)")[:, self.place]
