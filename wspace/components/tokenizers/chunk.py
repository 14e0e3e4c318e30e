"""Uniform blocks of each tensor, one token a block."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Ge
from einops import rearrange

from wspace.interfaces import TokenLayout
from wspace.interfaces.weights import WeightSpec
from wspace.weights.placed import PlacedTokenizer


class Chunk(PlacedTokenizer):
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
