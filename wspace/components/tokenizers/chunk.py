"""Uniform blocks of each tensor, one token a block."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Ge
from einops import rearrange

from wspace.interfaces import TokenLayout
from wspace.interfaces.weights import WeightSpec
from wspace.weights.placed import Fitted, PlacedTokenizer, Places, Scaling, SideBySide


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
        sizes = [entry.size for entry in spec.entries]
        if scale == "none":
            super().__init__(_as_they_are(sizes, size), SideBySide(sizes, size), Scaling())
            return
        places, tensors, blocks = [], [], 0
        for number, length in enumerate(sizes):
            places.append(torch.arange(length) + blocks * size)
            tensors.append(torch.full((length,), number))
            blocks += -(-length // size)
        place = torch.cat(places)  # (P,): where each weight lies in the padded (N*D,)
        mask = torch.zeros(blocks * size, dtype=torch.bool)
        mask[place] = True
        groups = place // size if scale == "minmax" else torch.cat(tensors)
        layout = TokenLayout(rearrange(mask, "(n d) -> n d", d=size))
        super().__init__(layout, Places(place, len(mask)), Fitted(scale, groups))


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
