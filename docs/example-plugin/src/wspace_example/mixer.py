"""A denoiser that mixes tokens by a learned matrix."""

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from wspace.api import Condition, Denoiser, TokenLayout, sinusoids


class Mixer(Denoiser):
    """MLP-Mixer (Tolstikhin et al., 2021) over weight tokens, each told the noise level and the pooled condition."""

    def __init__(self, width: Annotated[int, Ge(2)] = 64, *, layout: TokenLayout, pooled_width: int):
        super().__init__()
        self.enter = nn.Linear(layout.width, width)
        self.listen = nn.Linear(pooled_width + 32, width)
        self.across = nn.Linear(layout.count, layout.count)
        self.within = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.leave = nn.Linear(width, layout.width)

    def forward(self, x: Tensor, level: Tensor, condition: Condition, anchor: Tensor) -> Tensor:
        told = self.listen(torch.cat([sinusoids(level, 32), condition.pooled], dim=1))  # (B, width)
        hidden = self.enter(x) + told[:, None]  # (B, N, width)
        hidden = hidden + self.across(hidden.mT).mT
        return self.leave(hidden + self.within(hidden))  # (B, N, D)
