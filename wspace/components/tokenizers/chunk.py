"""Uniform blocks of each tensor, one token a block."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Ge
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from wspace.interfaces import TokenLayout
from wspace.interfaces.weights import WeightSpec
from wspace.weights.placed import PlacedTokenizer


class Chunk(PlacedTokenizer):
    """Each tensor cut into blocks of `size` values, the last one padded (Tian et al., 2025, eq. 4; Peebles et al., 2022).

    `scale` is that of `wspace.weights.scaling.fit_scale`: minmax block by block as in the paper, the others tensor by tensor.
    With `none`, tokens are the weights as they are, and nothing is kept of each weight: what `train.tokens` needs.
    """

    def __init__(
        self,
        size: Annotated[int, Ge(1)] = 576,
        scale: Literal["minmax", "zscore", "centered", "none"] = "minmax",
        *,
        spec: WeightSpec,
    ):
        self.sizes = [entry.size for entry in spec.entries]
        if scale == "none":
            nn.Module.__init__(self)
            self.layout = _as_they_are(self.sizes, size)
            return
        places, tensors, blocks = [], [], 0
        for number, entry in enumerate(spec.entries):
            places.append(torch.arange(entry.size) + blocks * size)
            tensors.append(torch.full((entry.size,), number))
            blocks += -(-entry.size // size)
        place = torch.cat(places)  # (P,): where each weight lies in the padded (N*D,)
        mask = torch.zeros(blocks * size, dtype=torch.bool)
        mask[place] = True
        groups = place // size if scale == "minmax" else torch.cat(tensors)
        super().__init__(TokenLayout(rearrange(mask, "(n d) -> n d", d=size)), place, groups, scale)

    def fit(self, weights: Tensor) -> None:
        if self.layout.stretches is None:
            super().fit(weights)

    def tokenize(self, weights: Tensor) -> Tensor:
        return super().tokenize(weights) if self.layout.stretches is None else self.arrange(weights)

    def detokenize(self, tokens: Tensor) -> Tensor:
        return super().detokenize(tokens) if self.layout.stretches is None else self.collect(tokens)

    def arrange(self, values: Tensor) -> Tensor:
        if self.layout.stretches is None:
            return super().arrange(values)
        width = self.layout.width
        padded = [functional.pad(part, (0, -part.shape[1] % width)) for part in values.split(self.sizes, dim=1)]
        return rearrange(torch.cat(padded, dim=1), "b (n d) -> b n d", d=width)

    def collect(self, tokens: Tensor) -> Tensor:
        if self.layout.stretches is None:
            return super().collect(tokens)
        lengths = [size + -size % self.layout.width for size in self.sizes]
        parts = rearrange(tokens, "b n d -> b (n d)").split(lengths, dim=1)
        return torch.cat([part[:, :size] for part, size in zip(parts, self.sizes, strict=True)], dim=1)


def _as_they_are(sizes: list[int], width: int) -> TokenLayout:
    """Of tensors of these sizes; a token's place is its tensor, and its number among that tensor's."""
    places, stretches, start = [], [], 0
    for number, size in enumerate(sizes):
        block = torch.arange(-(-size // width))
        places.append(torch.stack([torch.full_like(block, number), block, torch.zeros_like(block)], dim=1))
        stretches.append(torch.stack([start + block * width, (size - block * width).clamp_max(width)], dim=1))
        start += size
    where = torch.cat(stretches)
    return TokenLayout(torch.arange(width) < where[:, 1:], places=torch.cat(places), stretches=where)
