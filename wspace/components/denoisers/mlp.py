"""A plain network over all tokens at once: the smallest denoiser that works, for tests and first recipes."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from einops import rearrange
from torch import Tensor, nn

from wspace.interfaces import Condition, Denoiser, TokenLayout
from wspace.learning.denoising import sinusoids


class MLP(Denoiser):
    """Flat tokens, level and pooled condition through residual layers, plus the input times a gate of the level."""

    def __init__(
        self,
        width: Annotated[int, Ge(2)] = 256,
        depth: Annotated[int, Ge(1)] = 2,
        *,
        layout: TokenLayout,
        pooled_width: int,
    ):
        super().__init__()
        self.width = width
        values = layout.mask.numel()
        self.enter = nn.Linear(values, width)
        self.of_condition = nn.Linear(pooled_width, width)
        self.of_level = nn.Linear(2 * (width // 2), width)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            for _ in range(depth)
        )
        self.leave = nn.Linear(width, values)
        self.gate = nn.Linear(2 * (width // 2), 1)
        for layer in (self.leave, self.gate):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, level: Tensor, condition: Condition, anchor: Tensor) -> Tensor:
        time = sinusoids(level, self.width)  # (B, width)
        hidden = (
            self.enter(rearrange(x, "b n d -> b (n d)")) + self.of_condition(condition.pooled) + self.of_level(time)
        )
        for layer in self.layers:
            hidden = hidden + layer(hidden)
        out = rearrange(self.leave(hidden), "b (n d) -> b n d", d=x.shape[2])
        return out + rearrange(self.gate(time), "b 1 -> b 1 1") * x  # (B, N, D)
